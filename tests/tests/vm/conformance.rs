//! The real agent passes the cases that every agent has to pass.

use std::time::Duration;

use rackmem_api::agent::AgentClient;
use rackmem_api::conformance::{Subject, run};
use serde_json::json;

use crate::brick::Brick;

#[test]
fn root_qemu_the_agent_conforms() {
    let brick = Brick::start();
    let guest = brick.guest();
    let endpoint = format!("unix:{}", brick.rack.directory().join("agent.sock").display());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let failed = runtime.block_on(async {
        let client = AgentClient::new(endpoint.parse().unwrap(), None, None).unwrap();
        let spec = json!({
            "name": "template", "memory": 256 << 20, "memory_max": 512 << 20, "local": 64 << 20,
            "boot": { "kernel": guest.kernel, "initrd": guest.initrd, "append": guest_probe::GuestFiles::KERNEL_ARGUMENTS },
        });
        let attachment = json!({
            "id": "conf-m1", "start": 0, "end": 1u64 << 30, "port": 1, "server": brick.rack.address(), "class": "rack",
        });
        let subject = Subject {
            client,
            spec: serde_json::from_value(spec).unwrap(),
            attachment: serde_json::from_value(attachment).unwrap(),
            patience: Duration::from_secs(120),
        };
        run(&subject).await
    });
    assert!(failed.is_empty(), "{failed:#?}");
}
