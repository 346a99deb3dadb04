//! One compute brick with a simulated agent, and one memory brick with a real memory server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rackmem_agent_sim::{Latencies, SimAgent, SimConfig};
use rackmem_api::agent::{AgentClient, AttachmentView};
use rackmem_api::controller::{ControllerApi, ReservationNew};
use rackmem_api::{LatencyClass, Operation};
use rackmem_controller::{Controller, ControllerConfig};
use rackmem_far::{Credentials, SegmentView, Segments};
use rackmem_memory_server::{Listen, Server, ServerConfig, Shutdown};
use rackmem_types::Bytes;
use tempfile::{TempDir, tempdir};
use tokio::runtime::Runtime;

use super::clumsy::Clumsy;
use super::{change, ended, who};

pub(crate) const POOL: Bytes = Bytes(64 << 20);

pub(crate) const HALF: Bytes = Bytes(32 << 20);

pub(crate) const HALF_PAGES: u64 = 8192;

/// One compute brick with a simulated agent, and one memory brick with a real server.
pub(crate) struct Rig {
    directory: TempDir,
    server: Option<(Server, Shutdown)>,
    /// Where the agent lives, whatever becomes of controllers.
    agents: Runtime,
    agent: AgentClient,
}

impl Rig {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn server_start(&mut self) {
        let shutdown = Shutdown::new().unwrap();
        let config = ServerConfig::new(POOL, vec![Listen::Unix(self.path("m1.sock"))]);
        self.server = Some((Server::start(&config, &shutdown).unwrap(), shutdown));
    }

    pub(crate) fn server_stop(&mut self) {
        let (server, shutdown) = self.server.take().unwrap();
        shutdown.trigger();
        server.wait();
    }

    pub(crate) fn segments(&self) -> Segments {
        self.segments_at("m1.sock")
    }

    pub(crate) fn segments_at(&self, socket: &str) -> Segments {
        let address = format!("unix:{}", self.path(socket).display()).parse().unwrap();
        Segments::connect(address, &Credentials::default()).unwrap()
    }

    /// What the memory server itself lists.
    pub(crate) fn listed(&self) -> Vec<SegmentView> {
        self.segments().pool().unwrap().segments
    }

    /// The agent's table, as the agent itself tells.
    pub(crate) fn table(&self) -> Vec<AttachmentView> {
        self.agents.block_on(self.agent.attachment_list()).unwrap()
    }

    pub(crate) fn file(&self) -> String {
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

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

pub(crate) async fn reserve(controller: &Controller, size: Bytes) -> Operation {
    let new = ReservationNew::memory(Some("c1".to_owned()), size, LatencyClass::Tray);
    let change = change(controller).await;
    controller.reservation_create(change, who(), new).await.unwrap()
}

pub(crate) async fn release(controller: &Controller, id: u64) -> Operation {
    let release = controller.reservation_release(change(controller).await, who(), id).await.unwrap();
    ended(controller, &release).await
}

/// A controller that looks every 50 ms; with `dies_at` its store stops after so many changes.
pub(crate) async fn watching(state: &Path, hands: &Arc<Clumsy>, dies_at: Option<u64>) -> Controller {
    let watch_every = Duration::from_millis(50);
    let config = ControllerConfig { watch_every, dies_at, ..ControllerConfig::new(state) };
    Controller::start(config, hands.clone()).await.unwrap()
}

pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
