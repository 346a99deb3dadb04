//! The simulated agent passes the cases that every agent has to pass.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use rackmem_agent_sim::{Latencies, SimAgent, SimConfig};
use rackmem_api::conformance::{Subject, run, serve};

async fn subject(latencies: Latencies) {
    let directory = tempfile::tempdir().unwrap();
    let agent = Arc::new(SimAgent::new(SimConfig { latencies, ..SimConfig::default() }));
    let (client, closing) = serve(agent, directory.path()).unwrap();
    let spec = r#"{"name":"template","memory":1073741824,"memory_max":4294967296,"local":268435456,"boot":{"kernel":"/k"}}"#;
    let attachment = r#"{"id":"conf-m1","start":0,"end":8589934592,"port":1,"server":"m1:7070","segment":"a7","token":"00112233445566778899aabbccddeeff","class":"rack"}"#;
    let subject = Subject {
        client,
        spec: serde_json::from_str(spec).unwrap(),
        attachment: serde_json::from_str(attachment).unwrap(),
        patience: Duration::from_secs(20),
    };
    let failed = run(&subject).await;
    closing.close();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulated_agent_conforms() {
    subject(Latencies { step_ms: 1..=5, boot_ms: 5..=20, shut_down_ms: 1..=5, gib_ms: 1..=3 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_any_latency_conforms_too() {
    subject(Latencies::none()).await;
}
