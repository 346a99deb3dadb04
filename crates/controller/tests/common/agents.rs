//! One compute brick whose agent is simulated and served, and the rack around it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rackmem_agent_sim::{Latencies, SimAgent, SimConfig};
use rackmem_api::controller::MachineNew;
use rackmem_api::serve::{Closing, Listen, ServeConfig, Server};
use rackmem_controller::{Controller, ControllerConfig, RackHands};
use rackmem_far::Credentials;
use tempfile::{TempDir, tempdir};

/// A simulated agent at a socket, until it is dropped.
pub(crate) struct Served {
    pub(crate) directory: TempDir,
    pub(crate) agent: Arc<SimAgent>,
    closing: Closing,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.closing.close();
    }
}

impl Served {
    pub(crate) fn new(latencies: Latencies) -> Self {
        let (directory, closing) = (tempdir().unwrap(), Closing::default());
        let config = SimConfig { name: "c1".to_owned(), latencies, ..SimConfig::default() };
        let agent = Arc::new(SimAgent::new(config));
        let listen = vec![Listen::Unix(directory.path().join("agent.sock"))];
        let server = Server::open(&ServeConfig { listen, ..ServeConfig::default() }).unwrap();
        tokio::spawn(server.run(rackmem_api::agent::router(Arc::clone(&agent)), closing.clone()));
        Self { directory, agent, closing }
    }

    /// A rack of that agent's brick and a simulated memory server.
    pub(crate) fn rack(&self) -> String {
        let agent = self.directory.path().join("agent.sock");
        format!(
            r#"rack = [{{ name = "r1" }}]
tray = [{{ name = "t1", rack = "r1" }}]
compute = [{{ name = "c1", tray = "t1", cores = 4, local = "8GiB", ports = 1, address = "unix:{}" }}]
memory = [{{ name = "m1", tray = "t1", size = "8GiB", ports = 1, address = "sim:10.0.0.1:7070" }}]
switch = [{{ name = "s1", tray = "t1", kind = "circuit", ports = 2, address = "sim:2" }}]
cable = [{{ ends = ["c1:0", "s1:0"] }}, {{ ends = ["m1:0", "s1:1"] }}]
"#,
            agent.display()
        )
    }
}

/// A controller with real hands.
pub(crate) async fn controller(state: &Path, watch_every: Duration) -> Controller {
    let config = ControllerConfig { watch_every, ..ControllerConfig::new(state) };
    Controller::start(config, Arc::new(RackHands::new(None, None, Credentials::default()))).await.unwrap()
}

/// A machine of 1 GiB that can grow to 4 GiB.
pub(crate) fn machine(name: &str) -> MachineNew {
    let text = format!(
        r#"{{"name": "{name}", "memory": 1073741824, "memory_max": 4294967296, "local": 268435456, "class": "tray",
            "boot": {{"kernel": "/k"}}}}"#
    );
    serde_json::from_str(&text).unwrap()
}
