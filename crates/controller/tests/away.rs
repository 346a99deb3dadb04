//! Agents that do not answer, for a while or for good: who needs them waits or is told, and nobody else notices.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Bricks, change, ended, register_file, who};
use futures_util::future::BoxFuture;
use rackmem_api::agent::{AgentClient, VmView};
use rackmem_api::controller::{ControllerApi, DrainRequest, ReservationNew};
use rackmem_api::problem::ProblemType;
use rackmem_api::{IdempotencyKey, LatencyClass, Operation, OperationState, Problem};
use rackmem_controller::{
    Call, Controller, ControllerConfig, Hands, Order, Placed, Seen, TableEntry, Target, Told,
};
use rackmem_rack::{Name, Step};
use rackmem_types::Bytes;
use tempfile::{TempDir, tempdir};

/// Two compute bricks with agents, and a memory brick.
const RACK: &str = r#"
rack = [{ name = "r1" }]
tray = [{ name = "t1", rack = "r1" }]
compute = [
    { name = "c1", tray = "t1", cores = 1, local = "1GiB", ports = 1, address = "127.0.0.1:1" },
    { name = "c2", tray = "t1", cores = 1, local = "1GiB", ports = 1, address = "127.0.0.1:2" },
]
memory = [{ name = "m1", tray = "t1", size = "64GiB", ports = 2, address = "sim:127.0.0.1:3" }]
switch = [{ name = "s1", tray = "t1", kind = "packet", ports = 4 }]
cable = [
    { ends = ["c1:0", "s1:0"] },
    { ends = ["c2:0", "s1:1"] },
    { ends = ["m1:0", "s1:2"] },
    { ends = ["m1:1", "s1:3"] },
]
"#;

/// How a brick is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Away {
    /// It cannot be reached.
    Silent,
    /// It takes requests and does not answer.
    Hangs,
}

/// Bricks of which some are away.
#[derive(Debug, Default)]
struct Far {
    bricks: Bricks,
    away: Mutex<BTreeMap<String, Away>>,
}

impl Far {
    fn goes(&self, brick: &str, how: Away) {
        self.away.lock().unwrap().insert(brick.to_owned(), how);
    }

    fn comes_back(&self, brick: &str) {
        self.away.lock().unwrap().remove(brick);
    }

    async fn reach(&self, brick: Option<&Name>) -> Result<(), Problem> {
        let how = brick.and_then(|brick| self.away.lock().unwrap().get(brick.as_str()).copied());
        match how {
            None => Ok(()),
            Some(Away::Silent) => Err(Problem::new(ProblemType::Unavailable, "nobody is there")),
            Some(Away::Hangs) => std::future::pending().await,
        }
    }
}

impl Hands for Far {
    fn carry_out<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Option<Placed>, Problem>> {
        Box::pin(async move {
            let agent = match &order.step {
                Step::NetPortAdd { brick, .. }
                | Step::NetPortRemove { brick, .. }
                | Step::Attach { brick, .. }
                | Step::Detach { brick, .. } => Some(brick),
                _ => None,
            };
            self.reach(agent).await?;
            self.bricks.carry_out(order).await
        })
    }

    fn errand<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Told, Problem>> {
        self.bricks.errand(call)
    }

    fn machines<'a>(
        &'a self,
        brick: &'a Name,
        address: &'a str,
    ) -> BoxFuture<'a, Result<Vec<VmView>, Problem>> {
        self.bricks.machines(brick, address)
    }

    fn agent(&self, brick: &Name, address: &str) -> Result<AgentClient, Problem> {
        self.bricks.agent(brick, address)
    }

    fn look<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Seen, Problem>> {
        Box::pin(async move {
            match target {
                Target::Agent(name, _) => {
                    self.reach(Some(name)).await?;
                    let holds = self.bricks.holds.lock().unwrap().clone();
                    let prefix = format!("entry {name} ");
                    let entries = holds.iter().filter_map(|held| held.strip_prefix(&prefix));
                    let entry = |id: &str| {
                        let segment = rackmem_controller::segment_of(&format!("s{id}").parse().unwrap());
                        TableEntry { segment: segment.unwrap(), unreachable: None }
                    };
                    Ok(Seen::Table(entries.map(entry).collect()))
                }
                Target::Memory(..) => Ok(Seen::Pool(None)),
                Target::Switch(..) => std::future::pending().await,
            }
        })
    }
}

async fn rack(workers: usize) -> (TempDir, Arc<Far>, Controller) {
    watched(workers, Duration::from_millis(50)).await
}

async fn watched(workers: usize, every: Duration) -> (TempDir, Arc<Far>, Controller) {
    let (state, far) = (tempdir().unwrap(), Arc::new(Far::default()));
    let config = ControllerConfig { workers, watch_every: every, ..ControllerConfig::new(state.path()) };
    let controller = Controller::start(config, far.clone()).await.unwrap();
    register_file(&controller, RACK).await;
    (state, far, controller)
}

async fn reserve(controller: &Controller, brick: &str) -> Operation {
    let new = ReservationNew::memory(Some(brick.to_owned()), Bytes(1 << 20), LatencyClass::Tray);
    controller.reservation_create(change(controller).await, who(), new).await.unwrap()
}

/// Waits until the watch has seen whether the brick answers.
async fn seen(controller: &Controller, brick: &str, answers: bool) {
    for _ in 0..400 {
        if controller.brick_show(brick.to_owned()).await.unwrap().reachable == answers {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("whether {brick} answers is not seen");
}

#[tokio::test]
async fn an_agent_that_hangs_stops_nobody_else() {
    let (_state, far, controller) = rack(4).await;
    far.goes("c1", Away::Hangs);
    for _ in 0..100 {
        reserve(&controller, "c1").await;
    }
    let other = reserve(&controller, "c2").await;
    assert_eq!(ended(&controller, &other).await.state, OperationState::Done);
    // It is seen, and then nothing new is tried there.
    seen(&controller, "c1", false).await;
    let refused = reserve(&controller, "c1").await;
    let refused = ended(&controller, &refused).await;
    assert!(refused.error.unwrap().detail.contains("does not answer"));
}

#[tokio::test]
async fn what_an_agent_that_is_gone_was_to_have_is_undone_without_it() {
    // Nobody has noticed yet that it is gone.
    let (_state, far, controller) = watched(4, Duration::from_secs(3600)).await;
    // The first look is at once.
    tokio::time::sleep(Duration::from_millis(300)).await;
    far.goes("c1", Away::Silent);
    let failed = reserve(&controller, "c1").await;
    let failed = ended(&controller, &failed).await;
    assert_eq!(failed.state, OperationState::Failed);
    let why = failed.error.unwrap();
    assert!(why.detail.contains("nobody is there"), "{why}");
    assert!(controller.reservation_list(who()).await.unwrap().is_empty());
    assert_eq!(far.bricks.held(), 0);
}

#[tokio::test]
async fn a_brick_that_is_lost_for_good_is_let_go_of_and_what_it_kept_is_taken_from_it_should_it_return() {
    let (_state, far, controller) = rack(4).await;
    let change = change(&controller).await;
    let reserved = reserve(&controller, "c1").await;
    assert_eq!(ended(&controller, &reserved).await.state, OperationState::Done);
    let lost = DrainRequest { draining: true, lost: true };
    let refused = controller.brick_drain(change.clone(), "c1".to_owned(), lost).await.unwrap_err();
    assert!(refused.detail.contains("answers"), "{refused}");
    far.goes("c1", Away::Silent);
    seen(&controller, "c1", false).await;
    let id = reserved.target.parse().unwrap();
    let release = controller.reservation_release(change.clone(), who(), id).await.unwrap();
    // A machine there may use it still: it is not given up before somebody says so.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let waiting = controller.operation_show(who(), release.id).await.unwrap();
    assert_eq!(waiting.state, OperationState::Running);
    let through = controller.operation_cancel(change.clone(), who(), release.id).await.unwrap_err();
    assert_eq!((through.status, through.kind), (409, ProblemType::WrongState));
    assert!(through.detail.contains("carried through"), "{through}");
    controller.brick_drain(change.clone(), "c1".to_owned(), lost).await.unwrap();
    assert_eq!(ended(&controller, &release).await.state, OperationState::Done);
    let left = far.bricks.holds.lock().unwrap().clone();
    assert_eq!(left.into_iter().collect::<Vec<_>>(), ["entry c1 1.0"]);
    far.comes_back("c1");
    seen(&controller, "c1", true).await;
    for _ in 0..400 {
        if far.bricks.held() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(far.bricks.held(), 0, "its table was put right");
    controller.brick_remove(change, "c1".to_owned()).await.unwrap();
}

#[tokio::test]
async fn that_a_brick_is_lost_is_believed_while_something_of_it_is_held_and_that_is_told() {
    let (_state, far, controller) = rack(4).await;
    let reserved = reserve(&controller, "c1").await;
    assert_eq!(ended(&controller, &reserved).await.state, OperationState::Done);
    far.goes("c1", Away::Silent);
    seen(&controller, "c1", false).await;
    let lost = DrainRequest { draining: true, lost: true };
    let drain = controller.brick_drain(change(&controller).await, "c1".to_owned(), lost).await.unwrap();
    let drained = ended(&controller, &drain).await;
    assert_eq!((drained.state, drained.error), (OperationState::Done, None));
    assert_eq!(
        drained.note.unwrap(),
        "counts as lost; reservation 1 holds some of it: release or delete what needs it, then 'rackmem brick remove c1'"
    );
}

#[tokio::test]
async fn a_drain_for_which_there_is_no_room_says_so_and_is_explained() {
    let (_state, _far, controller) = rack(4).await;
    ended(&controller, &reserve(&controller, "c1").await).await;
    let drain = DrainRequest { draining: true, lost: false };
    let drain = controller.brick_drain(change(&controller).await, "m1".to_owned(), drain).await.unwrap();
    let error = ended(&controller, &drain).await.error.unwrap();
    let said =
        "m1: reservation 1 needs 1MiB elsewhere within class tray; 0B are free there; m1 takes nothing new";
    assert!(error.detail.starts_with(said), "{error}");
    let reasons = controller.operation_why(who(), drain.id).await.unwrap();
    let told: Vec<_> = reasons.iter().map(|reason| (reason.brick.as_str(), reason.serves)).collect();
    assert_eq!(told, [("c1", false), ("m1", false)]);
    assert!(reasons[1].why.contains("drains"), "{reasons:?}");
}

#[tokio::test]
async fn who_waits_for_a_turn_is_cancelled_at_once_and_it_is_told_by_whom() {
    let (_state, far, controller) = rack(1).await;
    far.goes("c1", Away::Hangs);
    reserve(&controller, "c1").await;
    let waiting = reserve(&controller, "c2").await;
    let mut change = change(&controller).await;
    change.by = "carol".to_owned();
    let cancelled = controller.operation_cancel(change, who(), waiting.id).await.unwrap();
    assert_eq!(cancelled.state, OperationState::Cancelled);
    assert!(cancelled.error.unwrap().detail.contains("by carol"));
}

#[tokio::test]
async fn where_no_more_can_wait_bricks_are_registered_all_the_same() {
    let (state, far) = (tempdir().unwrap(), Arc::new(Far::default()));
    let config = ControllerConfig { queue: 2, ..ControllerConfig::new(state.path()) };
    let controller = Controller::start(config, far.clone()).await.unwrap();
    register_file(&controller, RACK).await;
    far.goes("c1", Away::Hangs);
    for _ in 0..2 {
        reserve(&controller, "c1").await;
    }
    let new = ReservationNew::memory(Some("c2".to_owned()), Bytes(1 << 20), LatencyClass::Tray);
    let change = change(&controller).await;
    let refused = controller.reservation_create(change.clone(), who(), new).await.unwrap_err();
    assert_eq!((refused.status, refused.retry_after_s), (503, Some(1)));
    let brick = r#"{"name":"m2","tray":"t1","ports":1,"offers":{"kind":"memory","size":1073741824}}"#;
    let done = controller.brick_register(change, serde_json::from_str(brick).unwrap()).await.unwrap();
    assert_eq!(done.state, OperationState::Done);
}

#[tokio::test]
async fn the_same_key_of_somebody_else_is_another_key() {
    let (_state, _far, controller) = rack(4).await;
    let keyed = |by: &str, generation| rackmem_api::Change {
        generation,
        key: Some(IdempotencyKey { key: "k1".to_owned(), fingerprint: 1 }),
        by: by.to_owned(),
    };
    let new = ReservationNew::memory(Some("c1".to_owned()), Bytes(1 << 20), LatencyClass::Tray);
    let generation = change(&controller).await.generation;
    let create = async |controller: &Controller, by: &str, generation| {
        controller.reservation_create(keyed(by, generation), who(), new.clone()).await.unwrap()
    };
    let (alice, bob) =
        (create(&controller, "alice", generation).await, create(&controller, "bob", generation).await);
    assert_ne!(alice.id, bob.id);
    assert_eq!(create(&controller, "alice", generation).await.id, alice.id);
    ended(&controller, &bob).await;
}
