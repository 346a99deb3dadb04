//! What members see of others, which is nothing, and what they hear of; how long a token lets them listen; how much may wait.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::agents::{Served, controller};
use common::{change, ended, gib, register_file, who};
use futures_util::StreamExt;
use rackmem_agent_sim::Latencies;
use rackmem_api::controller::{ControllerApi, ControllerClient, ReservationNew, Tokens, router};
use rackmem_api::operation::WaitQuery;
use rackmem_api::problem::ProblemType;
use rackmem_api::serve::{Closing, Listen, ServeConfig, Server};
use rackmem_api::{Change, Event, LatencyClass, OperationState};
use rackmem_controller::{Controller, ControllerConfig, RackHands};
use rackmem_far::Credentials;

const SELDOM: Duration = Duration::from_secs(3600);

/// Alice's token ends so many milliseconds from now.
fn tokens(alice_ms: u64) -> Tokens {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let text = format!(
        r#"[{{"name": "alice", "token": "alice-alice-alice", "role": "member", "project": "p1", "expires_ms": {}}},
            {{"name": "bob", "token": "bob-bob-bob-bob-bob", "role": "member", "project": "p2"}}]"#,
        now + alice_ms
    );
    Tokens::read(&text).unwrap()
}

struct World {
    served: Served,
    controller: Arc<Controller>,
    closing: Closing,
}

impl Drop for World {
    fn drop(&mut self) {
        self.closing.close();
    }
}

impl World {
    async fn new(tokens: Tokens) -> Self {
        let (served, closing) = (Served::new(Latencies::none()), Closing::default());
        let controller = Arc::new(controller(&served.directory.path().join("state"), SELDOM).await);
        register_file(&controller, &served.rack()).await;
        let listen = vec![Listen::Unix(served.directory.path().join("controller.sock"))];
        let server = Server::open(&ServeConfig { listen, ..ServeConfig::default() }).unwrap();
        tokio::spawn(server.run(router(Arc::clone(&controller), Some(tokens)), closing.clone()));
        Self { served, controller, closing }
    }

    async fn client(&self, token: &str) -> ControllerClient {
        let socket = self.served.directory.path().join("controller.sock");
        let endpoint = format!("unix:{}", socket.display()).parse().unwrap();
        ControllerClient::new(endpoint, None, Some(token)).unwrap().under_present().await.unwrap()
    }
}

async fn reserve(client: &ControllerClient) -> u64 {
    let asked = client.reservation_create(&gib(1, LatencyClass::Tray)).await.unwrap();
    let ended = client.operation_wait(asked.id, WaitQuery { timeout: 20 }).await.unwrap();
    assert_eq!(ended.state, OperationState::Done, "{ended:?}");
    ended.target.parse().unwrap()
}

/// All that is told behind an event.
async fn heard(client: &ControllerClient, after: u64) -> Vec<Event> {
    let mut events = client.events(Some(after)).await.unwrap();
    let mut heard = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(300), events.next()).await {
        heard.push(event.unwrap());
    }
    heard
}

#[tokio::test]
async fn members_see_and_hear_of_their_own_project_only() {
    let world = World::new(tokens(3_600_000)).await;
    let alice = world.client("alice-alice-alice").await;
    let bob = world.client("bob-bob-bob-bob-bob").await;
    let (of_alice, of_bob) = (reserve(&alice).await, reserve(&bob).await);
    // Both are on the same circuit.
    for (client, own) in [(&alice, of_alice), (&bob, of_bob)] {
        let circuits = client.topology().await.unwrap().circuits;
        assert_eq!(circuits.len(), 1);
        assert_eq!(circuits[0].users, [own]);
    }
    let all = world.controller.topology(who()).await.unwrap().circuits;
    assert_eq!(all[0].users, [of_alice, of_bob]);

    let told = heard(&alice, 0).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].kind.as_str(), &told[0].target), ("operation.done", &of_alice.to_string()));
    assert_eq!(told[0].operation.as_ref().map(|operation| operation.by.as_str()), Some("alice"));
    assert_eq!(heard(&alice, told[0].id).await, []);
    let of_bob = heard(&bob, told[0].id).await;
    assert_eq!(of_bob.len(), 1, "{of_bob:?}");
}

#[tokio::test]
async fn whose_an_event_is_outlives_the_controller() {
    let served = Served::new(Latencies::none());
    let state = served.directory.path().join("state");
    let first = controller(&state, SELDOM).await;
    register_file(&first, &served.rack()).await;
    let new = ReservationNew { project: Some("p1".to_owned()), ..gib(1, LatencyClass::Tray) };
    let asked = first.reservation_create(change(&first).await, who(), new).await.unwrap();
    ended(&first, &asked).await;
    let copy = served.directory.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(&state).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let second = controller(&copy, SELDOM).await;
    for (project, count) in [("p1", 1), ("p2", 0)] {
        let member = rackmem_api::controller::Who { project: Some(project.to_owned()), ..who() };
        let mut events = second.events(member, Some(0)).await.unwrap();
        let mut heard = 0;
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(300), events.next()).await {
            heard += 1;
        }
        assert_eq!(heard, count, "{project}");
    }
}

#[tokio::test]
async fn a_stream_of_events_ends_with_its_token() {
    let world = World::new(tokens(2000)).await;
    let began = Instant::now();
    let alice = world.client("alice-alice-alice").await;
    let bob = world.client("bob-bob-bob-bob-bob").await;
    let mut events = alice.events(None).await.unwrap();
    let mut of_bob = bob.events(None).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
    assert!(!matches!(ended.unwrap(), Some(Ok(_))), "it was silent");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(alice.events(None).await.is_err(), "the token is over");
    assert!(tokio::time::timeout(Duration::from_millis(300), of_bob.next()).await.is_err(), "bob listens on");
}

#[tokio::test]
async fn nobody_takes_all_places_of_those_who_wait() {
    let served = Served::new(Latencies { step_ms: 600_000..=600_000, ..Latencies::none() });
    let config = ControllerConfig {
        queue: 8,
        watch_every: SELDOM,
        ..ControllerConfig::new(served.directory.path().join("state"))
    };
    let hands = Arc::new(RackHands::new(None, None, Credentials::default()));
    let controller = Controller::start(config, hands).await.unwrap();
    register_file(&controller, &served.rack()).await;
    let ask = async |name: &str| {
        let change = Change { by: name.to_owned(), ..change(&controller).await };
        controller.reservation_create(change, who(), gib(1, LatencyClass::Tray)).await
    };
    for _ in 0..6 {
        ask("alice").await.unwrap();
    }
    let refused = ask("alice").await.unwrap_err();
    assert_eq!((refused.kind, refused.retry_after_s), (ProblemType::Unavailable, Some(1)));
    assert!(refused.detail.contains("6 operations of 'alice' wait already"), "{refused}");
    ask("bob").await.unwrap();
    ask("carol").await.unwrap();
    let refused = ask("dave").await.unwrap_err();
    assert!(refused.detail.contains("8 operations wait already"), "{refused}");
}
