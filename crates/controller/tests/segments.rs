//! Reservations on real memory servers: whatever happens to a step, to the controller or to a server, a segment is there exactly
//! as long as its reservation is. The agents are simulated.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{change, ended, register_file, settled, start, who};
use futures_util::future::BoxFuture;
use rackmem_agent_sim::{Latencies, SimAgent, SimConfig};
use rackmem_api::agent::{AgentClient, AttachmentView, VmView};
use rackmem_api::controller::{ControllerApi, ReservationNew};
use rackmem_api::operation::OperationFilter;
use rackmem_api::problem::ProblemType;
use rackmem_api::{LatencyClass, Operation, OperationState, Problem};
use rackmem_controller::{
    Call, Controller, ControllerConfig, Hands, Order, Placed, RackHands, Seen, Target, Told,
};
use rackmem_far::{Credentials, SegmentView, Segments};
use rackmem_memory_server::{Listen, Server, ServerConfig, Shutdown};
use rackmem_rack::Name;
use rackmem_types::Bytes;
use tempfile::{TempDir, tempdir};
use tokio::runtime::Runtime;

const POOL: Bytes = Bytes(64 << 20);

const HALF: Bytes = Bytes(32 << 20);

const HALF_PAGES: u64 = 8192;

/// One compute brick with a simulated agent, and one memory brick with a real server.
struct Rig {
    directory: TempDir,
    server: Option<(Server, Shutdown)>,
    /// Where the agent lives, whatever becomes of controllers.
    agents: Runtime,
    agent: AgentClient,
}

impl Rig {
    fn new() -> Self {
        let directory = tempdir().unwrap();
        let agents = runtime();
        let config = SimConfig { latencies: Latencies::none(), ..SimConfig::default() };
        let serve = async {
            let (agent, closing) =
                rackmem_api::conformance::serve(Arc::new(SimAgent::new(config)), directory.path()).unwrap();
            // It serves until its runtime ends.
            std::mem::forget(closing);
            agent
        };
        let agent = agents.block_on(serve);
        let mut rig = Self { directory, server: None, agents, agent };
        rig.server_start();
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn server_start(&mut self) {
        let shutdown = Shutdown::new().unwrap();
        let config = ServerConfig::new(POOL, vec![Listen::Unix(self.path("m1.sock"))]);
        self.server = Some((Server::start(&config, &shutdown).unwrap(), shutdown));
    }

    fn server_stop(&mut self) {
        let (server, shutdown) = self.server.take().unwrap();
        shutdown.trigger();
        server.wait();
    }

    fn segments(&self) -> Segments {
        self.segments_at("m1.sock")
    }

    fn segments_at(&self, socket: &str) -> Segments {
        let address = format!("unix:{}", self.path(socket).display()).parse().unwrap();
        Segments::connect(address, &Credentials::default()).unwrap()
    }

    /// What the memory server itself lists.
    fn listed(&self) -> Vec<SegmentView> {
        self.segments().pool().unwrap().segments
    }

    /// The agent's table, as the agent itself tells.
    fn table(&self) -> Vec<AttachmentView> {
        self.agents.block_on(self.agent.attachment_list()).unwrap()
    }

    fn file(&self) -> String {
        let (agent, server) = (self.path("conformance.sock"), self.path("m1.sock"));
        format!(
            r#"rack = [{{ name = "r1" }}]
tray = [{{ name = "t1", rack = "r1" }}]
compute = [{{ name = "c1", tray = "t1", cores = 4, local = "8GiB", ports = 1, address = "unix:{}" }}]
memory = [{{ name = "m1", tray = "t1", size = "{}", ports = 1, address = "unix:{}" }}]
switch = [{{ name = "s1", tray = "t1", kind = "circuit", ports = 2 }}]
cable = [{{ ends = ["c1:0", "s1:0"] }}, {{ ends = ["m1:0", "s1:1"] }}]
"#,
            agent.display(),
            POOL.0,
            server.display(),
        )
    }

    fn state(&self) -> PathBuf {
        self.path("state")
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Real hands that do a step twice, or report a failure after it was done.
#[derive(Debug)]
struct Clumsy {
    real: RackHands,
    twice: bool,
    fails_at: usize,
    steps: AtomicUsize,
    /// It never gets to see how anything is.
    blind: bool,
}

impl Clumsy {
    fn new(twice: bool, fails_at: usize) -> Arc<Self> {
        let real = RackHands::new(None, None, Credentials::default());
        Arc::new(Self { real, twice, fails_at, steps: AtomicUsize::new(0), blind: false })
    }

    fn blind() -> Arc<Self> {
        let real = RackHands::new(None, None, Credentials::default());
        Arc::new(Self { real, twice: false, fails_at: 0, steps: AtomicUsize::new(0), blind: true })
    }
}

impl Hands for Clumsy {
    fn carry_out<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Option<Placed>, Problem>> {
        Box::pin(async move {
            let first = self.real.carry_out(order).await?;
            let done = if self.twice { self.real.carry_out(order).await? } else { first };
            assert_eq!(first, done, "{}", order.step);
            if self.steps.fetch_add(1, Ordering::Relaxed) + 1 == self.fails_at {
                return Err(Problem::new(ProblemType::Backend, "told to fail"));
            }
            Ok(done)
        })
    }

    fn errand<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Told, Problem>> {
        self.real.errand(call)
    }

    fn machines<'a>(
        &'a self,
        brick: &'a Name,
        address: &'a str,
    ) -> BoxFuture<'a, Result<Vec<VmView>, Problem>> {
        self.real.machines(brick, address)
    }

    fn agent(&self, brick: &Name, address: &str) -> Result<AgentClient, Problem> {
        self.real.agent(brick, address)
    }

    fn look<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Seen, Problem>> {
        if self.blind { Box::pin(std::future::pending()) } else { self.real.look(target) }
    }
}

async fn reserve(controller: &Controller, size: Bytes) -> Operation {
    let new = ReservationNew::memory(Some("c1".to_owned()), size, LatencyClass::Tray);
    let change = change(controller).await;
    controller.reservation_create(change, who(), new).await.unwrap()
}

async fn release(controller: &Controller, id: u64) -> Operation {
    let release = controller.reservation_release(change(controller).await, who(), id).await.unwrap();
    ended(controller, &release).await
}

/// A controller that looks every 50 ms.
async fn watching(state: &Path) -> Controller {
    let config = ControllerConfig { watch_every: Duration::from_millis(50), ..ControllerConfig::new(state) };
    Controller::start(config, Clumsy::new(false, 0)).await.unwrap()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_segment_is_there_as_long_as_its_reservation() {
    for twice in [false, true] {
        let rig = Rig::new();
        let life = runtime();
        let controller = life.block_on(start(&rig.state(), &Clumsy::new(twice, 0), None));
        life.block_on(async {
            register_file(&controller, &rig.file()).await;
            let done = ended(&controller, &reserve(&controller, HALF).await).await;
            assert_eq!(done.state, OperationState::Done, "{done:?}");
        });
        let listed = rig.listed();
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!((listed[0].name.as_str(), listed[0].pages, listed[0].attached), ("s1.0", HALF_PAGES, 0));
        let table = rig.table();
        assert_eq!(table[0].entry.segment.map(|segment| segment.0), Some(listed[0].id));
        assert_eq!(table[0].entry.range(), 0..HALF.0);
        assert_eq!(life.block_on(release(&controller, 1)).state, OperationState::Done);
        assert_eq!((rig.listed(), rig.table()), (Vec::new(), Vec::new()));
    }
}

#[test]
fn whatever_step_fails_no_segment_is_left() {
    for fails_at in 1..=3 {
        let rig = Rig::new();
        let life = runtime();
        life.block_on(async {
            let controller = start(&rig.state(), &Clumsy::new(false, fails_at), None).await;
            register_file(&controller, &rig.file()).await;
            let failed = ended(&controller, &reserve(&controller, HALF).await).await;
            assert_eq!(failed.state, OperationState::Failed, "step {fails_at}");
        });
        assert_eq!((rig.listed(), rig.table()), (Vec::new(), Vec::new()), "step {fails_at}");
    }
}

#[test]
fn a_server_that_refuses_is_told_and_nothing_is_left() {
    let rig = Rig::new();
    // Somebody else came first, and the controller has not looked since.
    let (other, owner) = (rig.segments(), Segments::owner());
    let theirs = other.create("somebody else's", HALF_PAGES + 1, owner, Duration::from_secs(60)).unwrap();
    let life = runtime();
    life.block_on(async {
        let controller = start(&rig.state(), &Clumsy::blind(), None).await;
        register_file(&controller, &rig.file()).await;
        let failed = ended(&controller, &reserve(&controller, HALF).await).await;
        let problem = failed.error.unwrap();
        assert_eq!((failed.state, problem.status), (OperationState::Failed, 409), "{problem}");
        assert!(problem.detail.contains("is full: 8191 pages are free"), "{problem}");
        assert!(controller.reservation_list(who()).await.unwrap().is_empty());
    });
    assert_eq!(rig.listed().iter().map(|listed| listed.id).collect::<Vec<_>>(), [theirs]);
}

/// The store takes `changes` and then no more; a second controller goes on with what is on the disk.
#[test]
fn after_a_crash_at_any_record_there_is_one_segment_or_none() {
    for changes in 1..=18 {
        let rig = Rig::new();
        let first = runtime();
        first.block_on(async {
            let controller = start(&rig.state(), &Clumsy::new(false, 0), Some(changes)).await;
            let work = async {
                register_file(&controller, &rig.file()).await;
                ended(&controller, &reserve(&controller, HALF).await).await;
                release(&controller, 1).await;
            };
            // It hangs where the store stopped; nobody waits for the dead.
            let _ = tokio::time::timeout(Duration::from_millis(400), work).await;
        });
        first.shutdown_timeout(Duration::from_secs(5));
        let reserved = runtime().block_on(async {
            let controller = start(&rig.state(), &Clumsy::new(false, 0), None).await;
            for operation in settled(&controller).await {
                assert_eq!(operation.state, OperationState::Done, "after {changes} changes: {operation:?}");
            }
            controller.reservation_list(who()).await.unwrap().len()
        });
        let (listed, table) = (rig.listed(), rig.table());
        assert_eq!((listed.len(), table.len()), (reserved, reserved), "after {changes} changes: {listed:?}");
        if let (Some(listed), Some(entry)) = (listed.first(), table.first()) {
            assert_eq!(entry.entry.segment.map(|segment| segment.0), Some(listed.id));
        }
    }
}

#[test]
fn a_server_that_lost_its_segments_is_noticed_and_believed() {
    let mut rig = Rig::new();
    let life = runtime();
    let controller = life.block_on(watching(&rig.state()));
    life.block_on(async {
        register_file(&controller, &rig.file()).await;
        ended(&controller, &reserve(&controller, HALF).await).await;
    });
    let lost = || life.block_on(controller.reservation_show(who(), 1)).unwrap().mappings[0].lost;
    std::thread::sleep(Duration::from_millis(300));
    assert!(!lost(), "it is there");
    rig.server_stop();
    rig.server_start();
    until("the loss is noticed", lost);
    assert_eq!(life.block_on(release(&controller, 1)).state, OperationState::Done);
    let again = life.block_on(async {
        let reserve = reserve(&controller, HALF).await;
        ended(&controller, &reserve).await
    });
    assert_eq!(again.state, OperationState::Done, "{again:?}");
    assert_eq!(rig.listed().len(), 1);
}

#[test]
fn a_segment_that_somebody_destroyed_is_noticed() {
    let rig = Rig::new();
    let life = runtime();
    let controller = life.block_on(watching(&rig.state()));
    life.block_on(async {
        register_file(&controller, &rig.file()).await;
        ended(&controller, &reserve(&controller, HALF).await).await;
        // The secret is in the store, and an administrator may use it.
        let database = rig.state().join("controller.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database).read_only(true);
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        let (id, owner): (i64, Vec<u8>) =
            sqlx::query_as("SELECT id, owner FROM deeds").fetch_one(&pool).await.unwrap();
        rig.segments().destroy(id.cast_unsigned(), owner.try_into().unwrap()).unwrap();
    });
    until("the loss is noticed", || {
        life.block_on(controller.reservation_show(who(), 1)).unwrap().mappings[0].lost
    });
    let operations = life.block_on(controller.operation_list(who(), OperationFilter::default())).unwrap();
    assert!(operations.iter().all(|operation| operation.state == OperationState::Done), "{operations:?}");
}

#[test]
fn what_could_not_be_destroyed_goes_when_its_server_answers_again() {
    let rig = Rig::new();
    let life = runtime();
    let controller = life.block_on(watching(&rig.state()));
    life.block_on(async {
        register_file(&controller, &rig.file()).await;
        ended(&controller, &reserve(&controller, HALF).await).await;
    });
    // It lives, and nobody finds it.
    let (here, away) = (rig.path("m1.sock"), rig.path("away.sock"));
    std::fs::rename(&here, &away).unwrap();
    assert_eq!(life.block_on(release(&controller, 1)).state, OperationState::Done);
    let left = rig.segments_at("away.sock").pool().unwrap().segments;
    assert_eq!(left.len(), 1, "nobody could destroy it");
    std::fs::rename(&away, &here).unwrap();
    until("it is destroyed", || rig.listed().is_empty());
}
