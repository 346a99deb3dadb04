//! Why a brick does not answer is told: once, and again when the reason is another one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::register_file;
use futures_util::StreamExt;
use rackmem_agent_sim::{SimAgent, SimConfig};
use rackmem_api::Event;
use rackmem_api::auth::{Guard, Token};
use rackmem_api::controller::ControllerApi;
use rackmem_api::serve::{Closing, Listen, ServeConfig, Server};
use rackmem_controller::{Controller, ControllerConfig, RackHands};
use rackmem_far::Credentials;

/// Between two looks; so a few of them are within [`WHILE`].
const EVERY: Duration = Duration::from_millis(20);

const WHILE: Duration = Duration::from_millis(300);

const TOKEN: &str = "0123456789abcdef0";

fn rack(agent: &Path) -> String {
    format!(
        r#"rack = [{{ name = "r1" }}]
tray = [{{ name = "t1", rack = "r1" }}]
compute = [{{ name = "c1", tray = "t1", cores = 4, local = "8GiB", ports = 1, address = "unix:{}" }}]
switch = [{{ name = "s1", tray = "t1", kind = "circuit", ports = 2, address = "tc:rackmem-no-such" }}]
"#,
        agent.display()
    )
}

fn serve(path: &Path, token: Option<&str>, closing: &Closing) {
    let guard = Guard { token: token.map(|token| Token::new(token).unwrap()) };
    let config = ServeConfig { listen: vec![Listen::Unix(path.to_owned())], guard, ..ServeConfig::default() };
    let agent = Arc::new(SimAgent::new(SimConfig { name: "c1".to_owned(), ..SimConfig::default() }));
    tokio::spawn(Server::open(&config).unwrap().run(rackmem_api::agent::router(agent), closing.clone()));
}

/// What was told of a brick or switch, from the beginning.
async fn told(controller: &Controller, target: &str) -> Vec<String> {
    let mut events = controller.events(common::who(), Some(0)).await.unwrap();
    let mut told = Vec::new();
    while let Ok(Some(Event { kind, target: of, detail, .. })) =
        tokio::time::timeout(WHILE, events.next()).await
    {
        if (kind.as_str(), of.as_str()) == ("rack.difference", target) {
            told.push(detail);
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_brick_does_not_answer_is_told_once_per_reason() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let config = ControllerConfig::new(directory.path().join("state"));
    let config = ControllerConfig { watch_every: EVERY, ..config };
    let hands = Arc::new(RackHands::new(None, None, Credentials::default()));
    let controller = Controller::start(config, hands).await.unwrap();
    register_file(&controller, &rack(&socket)).await;
    tokio::time::sleep(WHILE).await;
    let before = told(&controller, "c1").await;
    assert_eq!(before.len(), 1, "{before:?}");
    assert!(before[0].starts_with("c1 does not answer: cannot reach unix:"), "{before:?}");
    let switch = told(&controller, "s1").await;
    assert!(switch.len() == 1 && switch[0].contains("rackmem-no-such"), "{switch:?}");
    // Somebody listens there now, who wants a token.
    let closing = Closing::default();
    serve(&socket, Some(TOKEN), &closing);
    tokio::time::sleep(WHILE).await;
    let then = told(&controller, "c1").await;
    assert_eq!(then.len(), 2, "{then:?}");
    assert!(then[1].starts_with("c1 does not answer:") && then[1].contains("token"), "{then:?}");
    assert!(!controller.brick_show("c1".to_owned()).await.unwrap().reachable);
    closing.close();
}
