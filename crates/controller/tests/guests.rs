//! What a controller passes on to the agents of its bricks: pauses, bounds, consoles, logs and watched pages, over simulated agents
//! and as clients ask for it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::clumsy::Clumsy;
use common::{ended, register_file, who};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use rackmem_agent_sim::{Latencies, SimAgent, SimConfig};
use rackmem_api::agent::{
    AgentApi, AgentClient, ElasticBounds, LogQuery, LogSource, VmState, VmView, WatchQuery,
};
use rackmem_api::controller::{
    ControllerApi, ControllerClient, MachineNew, MachineState, Tokens, kind, router,
};
use rackmem_api::operation::WaitQuery;
use rackmem_api::problem::ProblemType;
use rackmem_api::serve::{Closing, Listen, ServeConfig, Server};
use rackmem_api::{ApiError, Change, Generation, Operation, OperationState, Problem, VmName};
use rackmem_controller::{Call, Controller, ControllerConfig, Hands, Order, Placed, Seen, Target, Told};
use rackmem_rack::Name;
use rackmem_types::Bytes;
use tempfile::{TempDir, tempdir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BOUNDS: ElasticBounds = ElasticBounds { min: Bytes(1 << 30), max: Bytes(3 << 30) };

const WIDER: ElasticBounds = ElasticBounds { min: Bytes(1 << 30), max: Bytes(4 << 30) };

const TOKENS: &str = r#"[
    {"name": "root", "token": "root-root-root-root", "role": "admin"},
    {"name": "alice", "token": "alice-alice-alice", "role": "member", "project": "p1"},
    {"name": "bob", "token": "bob-bob-bob-bob-bob", "role": "member", "project": "p2"},
    {"name": "c1", "token": "c1-c1-c1-c1-c1-c1-c1", "role": "agent"}
]"#;

fn web1() -> VmName {
    "web1".parse().unwrap()
}

fn new() -> MachineNew {
    let text = r#"{"name": "web1", "project": "p1", "memory": 1073741824, "memory_max": 4294967296, "local": 268435456,
        "class": "tray", "boot": {"kernel": "/k"}}"#;
    serde_json::from_str(text).unwrap()
}

/// A controller over one compute brick with a simulated agent, both served.
struct Rig {
    directory: TempDir,
    agent: Arc<SimAgent>,
    hands: Arc<Clumsy>,
    controller: Arc<Controller>,
    closing: Closing,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.closing.close();
    }
}

impl Rig {
    async fn new(twice: bool, watch_every: Duration) -> Self {
        let (directory, closing) = (tempdir().unwrap(), Closing::default());
        let config =
            SimConfig { name: "c1".to_owned(), latencies: Latencies::none(), ..SimConfig::default() };
        let agent = Arc::new(SimAgent::new(config));
        let agents = directory.path().join("agent.sock");
        serve(&agents, rackmem_api::agent::router(Arc::clone(&agent)), &closing);
        let hands = Clumsy::new(twice, 0);
        let config =
            ControllerConfig { watch_every, ..ControllerConfig::new(directory.path().join("state")) };
        let controller = Arc::new(Controller::start(config, hands.clone()).await.unwrap());
        register_file(&controller, &rack(&format!("unix:{}", agents.display()))).await;
        let tokens = Tokens::read(TOKENS).unwrap();
        let socket = directory.path().join("controller.sock");
        serve(&socket, router(Arc::clone(&controller), Some(tokens)), &closing);
        Self { directory, agent, hands, controller, closing }
    }

    /// A controller that looks at its bricks so seldom that it does not.
    async fn blind(twice: bool) -> Self {
        Self::new(twice, Duration::from_secs(3600)).await
    }

    /// Asks over HTTP.
    async fn client(&self, token: &str) -> ControllerClient {
        let socket = self.directory.path().join("controller.sock");
        let endpoint = format!("unix:{}", socket.display()).parse().unwrap();
        ControllerClient::new(endpoint, None, Some(token)).unwrap().under_present().await.unwrap()
    }

    async fn root(&self) -> ControllerClient {
        self.client("root-root-root-root").await
    }

    async fn create(&self) -> ControllerClient {
        let client = self.root().await;
        done(&client, client.vm_create(&new()).await).await;
        client
    }

    /// What the agent itself says: whether the machine is paused, and between which bounds it follows its guest.
    async fn at_the_agent(&self) -> (VmState, Option<ElasticBounds>) {
        let view = self.agent.vm_show(web1()).await.unwrap();
        (view.state, view.elastic.map(|elastic| elastic.bounds))
    }

    async fn in_the_books(&self) -> (MachineState, Option<ElasticBounds>) {
        let view = self.controller.vm_list(who()).await.unwrap().pop().unwrap();
        (view.state, view.elastic)
    }
}

fn serve(path: &std::path::Path, router: axum::Router, closing: &Closing) {
    let config = ServeConfig { listen: vec![Listen::Unix(path.to_owned())], ..ServeConfig::default() };
    tokio::spawn(Server::open(&config).unwrap().run(router, closing.clone()));
}

fn rack(agent: &str) -> String {
    format!(
        r#"rack = [{{ name = "r1" }}]
tray = [{{ name = "t1", rack = "r1" }}]
compute = [{{ name = "c1", tray = "t1", cores = 4, local = "8GiB", ports = 1, address = "{agent}" }}]
memory = [{{ name = "m1", tray = "t1", size = "8GiB", ports = 1, address = "sim:10.0.0.1:7070" }}]
switch = [{{ name = "s1", tray = "t1", kind = "circuit", ports = 2, address = "sim:2" }}]
cable = [{{ ends = ["c1:0", "s1:0"] }}, {{ ends = ["m1:0", "s1:1"] }}]
"#
    )
}

async fn end(client: &ControllerClient, asked: Result<Operation, ApiError>) -> Operation {
    let ended = client.operation_wait(asked.unwrap().id, WaitQuery { timeout: 20 }).await.unwrap();
    assert!(ended.state.is_final(), "{ended:?}");
    ended
}

async fn done(client: &ControllerClient, asked: Result<Operation, ApiError>) -> Operation {
    let ended = end(client, asked).await;
    assert_eq!(ended.state, OperationState::Done, "{ended:?}");
    ended
}

/// The problem with which it was refused.
fn refused<T>(asked: Result<T, ApiError>) -> Problem {
    match asked {
        Ok(_) => panic!("it was not refused"),
        Err(ApiError::Problem(problem)) => problem,
        Err(other) => panic!("{other}"),
    }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_is_paused_and_followed_through_its_controller() {
    for twice in [false, true] {
        let rig = Rig::blind(twice).await;
        let client = rig.create().await;
        let paused = done(&client, client.vm_pause(&web1()).await).await;
        assert_eq!((paused.kind.as_str(), paused.by.as_str()), (kind::VM_PAUSE, "root"));
        assert_eq!(rig.at_the_agent().await, (VmState::Paused, None));
        assert_eq!(rig.in_the_books().await, (MachineState::Paused, None));
        done(&client, client.vm_resume(&web1()).await).await;
        assert_eq!(rig.at_the_agent().await, (VmState::Running, None));
        assert_eq!(client.vm_elastic_show(&web1()).await.unwrap(), None);
        done(&client, client.vm_elastic_set(&web1(), Some(BOUNDS)).await).await;
        assert_eq!(rig.at_the_agent().await, (VmState::Running, Some(BOUNDS)));
        assert_eq!(rig.in_the_books().await, (MachineState::Running, Some(BOUNDS)));
        // What the agent decided comes with it.
        rig.agent.guest_uses(&web1(), Bytes(960 << 20)).unwrap();
        until("the guest grows", async || {
            let view = client.vm_elastic_show(&web1()).await.unwrap().unwrap();
            assert_eq!(view.bounds, BOUNDS);
            view.decisions.iter().any(|decision| decision.to > decision.from)
        })
        .await;
        let shown = client.vm_show(&web1()).await.unwrap();
        assert_eq!(shown.machine.unwrap().elastic.unwrap().bounds, shown.elastic.unwrap());
        done(&client, client.vm_elastic_set(&web1(), None).await).await;
        assert_eq!(rig.at_the_agent().await.1, None);
        assert_eq!(rig.in_the_books().await, (MachineState::Running, None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_errand_fails_the_machine_is_as_it_was() {
    let rig = Rig::blind(false).await;
    let client = rig.create().await;
    let failed = async |asked: Result<Operation, ApiError>| {
        let failed = end(&client, asked).await;
        assert_eq!(failed.state, OperationState::Failed, "{failed:?}");
        assert!(failed.error.unwrap().detail.contains("told to fail"));
    };
    rig.hands.fail_after(1);
    failed(client.vm_pause(&web1()).await).await;
    rig.hands.fail_after(1);
    failed(client.vm_elastic_set(&web1(), Some(BOUNDS)).await).await;
    assert_eq!(rig.at_the_agent().await, (VmState::Running, None));
    assert_eq!(rig.in_the_books().await, (MachineState::Running, None));
    done(&client, client.vm_pause(&web1()).await).await;
    done(&client, client.vm_elastic_set(&web1(), Some(BOUNDS)).await).await;
    rig.hands.fail_after(1);
    failed(client.vm_resume(&web1()).await).await;
    for bounds in [Some(WIDER), None] {
        rig.hands.fail_after(1);
        failed(client.vm_elastic_set(&web1(), bounds).await).await;
    }
    assert_eq!(rig.at_the_agent().await, (VmState::Paused, Some(BOUNDS)));
    assert_eq!(rig.in_the_books().await, (MachineState::Paused, Some(BOUNDS)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_speaks_through_its_controller() {
    let rig = Rig::blind(false).await;
    let client = rig.create().await;
    let log = client.vm_log(&web1(), LogQuery::default()).await.unwrap();
    assert_eq!(String::from_utf8(log).unwrap(), "booted\n");
    let tail = LogQuery { tail: Some(3), source: LogSource::Console };
    assert_eq!(client.vm_log(&web1(), tail).await.unwrap(), b"ed\n");
    let mut console = client.vm_console(&web1()).await.unwrap().0;
    console.write_all(b"is anybody there?\n").await.unwrap();
    let mut said = String::new();
    until("the console answers", async || {
        let mut bytes = [0; 256];
        let count = console.read(&mut bytes).await.unwrap();
        said += std::str::from_utf8(&bytes[..count]).unwrap();
        said.contains("is anybody there?\n")
    })
    .await;
    assert!(said.starts_with("booted\n"), "{said}");
    let accesses = client.vm_watch(&web1(), WatchQuery { address: 0x1000 }).await.unwrap();
    let accesses: Vec<_> = accesses.take(2).map(Result::unwrap).collect().await;
    assert!(accesses.iter().all(|access| access.address == 0x1000), "{accesses:?}");
    assert!(!accesses[0].write && accesses[1].write, "{accesses:?}");
    // What the agent refuses is told in its words.
    let nowhere = refused(client.vm_watch(&web1(), WatchQuery { address: 1 << 50 }).await);
    assert_eq!((nowhere.status, nowhere.detail.contains("no memory at address")), (422, true), "{nowhere}");
    let long = refused(client.vm_log(&web1(), LogQuery { tail: Some(u32::MAX), ..tail }).await);
    assert_eq!(long.status, 400, "{long}");
    done(&client, client.vm_pause(&web1()).await).await;
    let stands = refused(client.vm_console(&web1()).await);
    assert_eq!((stands.status, stands.detail.contains("resume")), (409, true), "{stands}");
    assert!(!client.vm_log(&web1(), LogQuery::default()).await.unwrap().is_empty());
}

/// All that can be asked of a machine, and how it was refused.
async fn all_refused(client: &ControllerClient) -> Vec<Problem> {
    let vm = &web1();
    vec![
        refused(client.vm_pause(vm).await),
        refused(client.vm_resume(vm).await),
        refused(client.vm_elastic_set(vm, Some(BOUNDS)).await),
        refused(client.vm_elastic_set(vm, None).await),
        refused(client.vm_elastic_show(vm).await),
        refused(client.vm_log(vm, LogQuery::default()).await),
        refused(client.vm_console(vm).await),
        refused(client.vm_watch(vm, WatchQuery { address: 0 }).await),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_of_others_are_not_there() {
    let rig = Rig::blind(false).await;
    for problem in all_refused(&rig.root().await).await {
        assert_eq!((problem.status, problem.detail.contains("no virtual machine 'web1'")), (404, true));
    }
    rig.create().await;
    let alice = rig.client("alice-alice-alice").await;
    done(&alice, alice.vm_pause(&web1()).await).await;
    done(&alice, alice.vm_resume(&web1()).await).await;
    assert_eq!(alice.vm_log(&web1(), LogQuery::default()).await.unwrap(), b"booted\n");
    for (token, status) in [("bob-bob-bob-bob-bob", 404), ("c1-c1-c1-c1-c1-c1-c1", 403)] {
        for problem in all_refused(&rig.client(token).await).await {
            assert_eq!(problem.status, status, "{token}: {problem}");
        }
    }
    assert_eq!(rig.at_the_agent().await, (VmState::Running, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_away_is_named() {
    let rig = Rig::new(false, Duration::from_millis(50)).await;
    let client = rig.create().await;
    rig.agent.away_set(true);
    until("it is known", async || !client.brick_show("c1").await.unwrap().reachable).await;
    let asked = async || {
        let vm = &web1();
        vec![
            refused(client.vm_pause(vm).await),
            refused(client.vm_elastic_set(vm, Some(BOUNDS)).await),
            refused(client.vm_elastic_set(vm, None).await),
            refused(client.vm_elastic_show(vm).await),
            refused(client.vm_log(vm, LogQuery::default()).await),
            refused(client.vm_console(vm).await),
            refused(client.vm_watch(vm, WatchQuery { address: 0 }).await),
        ]
    };
    for problem in asked().await {
        assert_eq!((problem.status, problem.detail.contains("'c1'")), (503, true), "{problem}");
        assert!(problem.retry_after_s.is_some(), "{problem:?}");
    }
    rig.agent.away_set(false);
    until("it is back", async || client.brick_show("c1").await.unwrap().reachable).await;
    done(&client, client.vm_pause(&web1()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_goes_away_meanwhile_is_waited_for_and_the_machine_is_as_it_was() {
    let rig = Rig::blind(false).await;
    let client = rig.create().await;
    rig.agent.away_set(true);
    let asked = client.vm_pause(&web1()).await.unwrap();
    until("its way back waits", async || {
        let step = client.operation_show(asked.id).await.unwrap().step;
        step.is_some_and(|step| step.contains("go on; tried 3 times"))
    })
    .await;
    rig.agent.away_set(false);
    let ended = ended(&rig.controller, &asked).await;
    let problem = ended.error.unwrap();
    assert_eq!((ended.state, problem.status), (OperationState::Failed, 503), "{problem}");
    assert_eq!(rig.at_the_agent().await, (VmState::Running, None));
    assert_eq!(rig.in_the_books().await, (MachineState::Running, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_behind_the_controllers_back_is_told() {
    let rig = Rig::new(false, Duration::from_millis(50)).await;
    let client = rig.create().await;
    let generation = rig.agent.host().await.unwrap().generation;
    let change = || Change::new(Generation(generation.0), "somebody");
    rig.agent.vm_pause(change(), web1()).await.unwrap();
    until("it is paused", async || rig.in_the_books().await.0 == MachineState::Paused).await;
    rig.agent.vm_elastic_set(change(), web1(), Some(BOUNDS)).await.unwrap();
    until("it follows", async || rig.in_the_books().await.1 == Some(BOUNDS)).await;
    rig.agent.vm_resume(change(), web1()).await.unwrap();
    until("it goes on", async || rig.in_the_books().await == (MachineState::Running, Some(BOUNDS))).await;
    let words = ["is paused", "follows its guest from 1GiB to 3GiB", "is running"];
    let differences = client.events(Some(0)).await.unwrap().map(Result::unwrap);
    let differences = differences.filter(|event| std::future::ready(event.kind == "vm.difference"));
    let told: Vec<_> = differences.take(words.len()).map(|event| event.detail).collect().await;
    assert!(told.iter().zip(words).all(|(told, words)| told.contains(words)), "{told:?}");
    // A machine that is gone from its brick is told as such.
    rig.agent.vm_delete(change(), web1()).await.unwrap();
    let gone = refused(client.vm_log(&web1(), LogQuery::default()).await);
    assert_eq!((gone.status, gone.detail.contains("c1 does not have")), (409, true), "{gone}");
}

/// Hands that never get done.
#[derive(Debug)]
struct Stuck;

impl Hands for Stuck {
    fn carry_out<'a>(&'a self, _: &'a Order) -> BoxFuture<'a, Result<Option<Placed>, Problem>> {
        Box::pin(std::future::pending())
    }

    fn errand<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, Result<Told, Problem>> {
        Box::pin(std::future::pending())
    }

    fn machines<'a>(&'a self, _: &'a Name, _: &'a str) -> BoxFuture<'a, Result<Vec<VmView>, Problem>> {
        Box::pin(std::future::pending())
    }

    fn agent(&self, brick: &Name, _: &str) -> Result<AgentClient, Problem> {
        panic!("{brick} is asked")
    }

    fn look<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<Seen, Problem>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_machine_without_a_brick_has_nobody_to_be_asked() {
    let state = tempdir().unwrap();
    let config = ControllerConfig { workers: 1, ..ControllerConfig::new(state.path()) };
    let controller = Controller::start(config, Arc::new(Stuck)).await.unwrap();
    register_file(&controller, &rack("unix:/nowhere")).await;
    let change = common::change(&controller).await;
    // The one worker stands still at the first of them.
    let named = |name: &str| MachineNew { name: name.parse().unwrap(), ..new() };
    for name in ["first", "web1"] {
        controller.vm_create(change.clone(), who(), named(name)).await.unwrap();
    }
    let problem = controller.vm_log(who(), web1(), LogQuery::default()).await.unwrap_err();
    assert_eq!((problem.status, problem.detail.contains("no brick is chosen")), (409, true), "{problem}");
    let busy = controller.vm_pause(change, who(), web1()).await.unwrap_err();
    assert_eq!(busy.kind, ProblemType::Busy, "{busy}");
}
