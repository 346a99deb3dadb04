//! What is wrong is told, with the right status, and nothing is half done.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;

use common::{Bricks, change, ended, gib, register, start, who};
use rackmem_api::controller::{
    BrickKind, BrickNew, CableNew, ControllerApi, RackFile, ReservationNew, Role, Who,
};
use rackmem_api::{Change, Generation, IdempotencyKey, LatencyClass, OperationState};
use rackmem_controller::{Controller, ControllerConfig};
use rackmem_types::Bytes;
use tempfile::{TempDir, tempdir};

async fn rack() -> (TempDir, Controller, Change) {
    let state = tempdir().unwrap();
    let controller = start(state.path(), &Arc::new(Bricks::default()), None).await;
    register(&controller).await;
    let change = change(&controller).await;
    (state, controller, change)
}

fn brick(name: &str, to: &str) -> BrickNew {
    BrickNew {
        name: name.to_owned(),
        tray: "t1".to_owned(),
        ports: 1,
        offers: BrickKind::Memory { size: Bytes(1 << 30) },
        watts: 0,
        address: None,
        cables: vec![CableNew { port: 0, to: to.to_owned(), latency_ns: 100, mbps: 10_000 }],
    }
}

#[tokio::test]
async fn registrations_that_cannot_be_are_refused_whole() {
    let (_state, controller, change) = rack().await;
    let bricks = controller.brick_list().await.unwrap().len();
    for (new, status) in [
        (brick("m1", "s1:11"), 409),
        (brick("m9", "s1:0"), 409),
        (brick("m9", "s9:0"), 404),
        (brick("m 9", "s1:11"), 422),
    ] {
        let problem = controller.brick_register(change.clone(), new.clone()).await.unwrap_err();
        assert_eq!(problem.status, status, "{new:?}: {problem}");
        assert_eq!(controller.brick_list().await.unwrap().len(), bricks);
    }
    let file = RackFile { file: "[[rack]]\nname = 7\n".to_owned() };
    let problem = controller.rack_register(change, file).await.unwrap_err();
    assert_eq!((problem.status, problem.detail.contains("line 2, column")), (422, true), "{problem}");
}

#[tokio::test]
async fn what_cannot_be_met_names_the_limit_and_is_explained_brick_by_brick() {
    let (_state, controller, change) = rack().await;
    let unknown = ReservationNew::memory(Some("c9".to_owned()), Bytes(4096), LatencyClass::Rack);
    let problem = controller.reservation_create(change.clone(), who(), unknown).await.unwrap_err();
    assert_eq!(problem.status, 404);
    let operation =
        controller.reservation_create(change, who(), gib(1000, LatencyClass::Tray)).await.unwrap();
    let operation = ended(&controller, &operation).await;
    assert_eq!((operation.state, operation.error.unwrap().status), (OperationState::Failed, 409));
    let reasons = controller.operation_why(who(), operation.id).await.unwrap();
    assert!(reasons.iter().any(|reason| reason.brick == "m1" && !reason.why.is_empty()), "{reasons:?}");
    assert!(controller.reservation_list(who()).await.unwrap().is_empty());
}

#[tokio::test]
async fn older_reigns_and_keys_of_other_requests_are_refused() {
    let (_state, controller, change) = rack().await;
    let old = Change::new(Generation(change.generation.0 - 1), "test");
    let problem = controller.reservation_create(old, who(), gib(1, LatencyClass::Tray)).await.unwrap_err();
    assert_eq!((problem.status, problem.generation), (412, Some(change.generation.0)));
    let keyed = |fingerprint| Change {
        key: Some(IdempotencyKey { key: "k1".to_owned(), fingerprint }),
        ..change.clone()
    };
    let new = gib(1, LatencyClass::Tray);
    let first = controller.reservation_create(keyed(1), who(), new.clone()).await.unwrap();
    let again = controller.reservation_create(keyed(1), who(), new.clone()).await.unwrap();
    assert_eq!(first.id, again.id);
    assert_eq!(controller.reservation_create(keyed(2), who(), new).await.unwrap_err().status, 422);
    ended(&controller, &first).await;
    assert_eq!(controller.reservation_list(who()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_brick_that_is_in_use_stays() {
    let (_state, controller, change) = rack().await;
    let reserve =
        controller.reservation_create(change.clone(), who(), gib(1, LatencyClass::Tray)).await.unwrap();
    ended(&controller, &reserve).await;
    let problem = controller.brick_remove(change.clone(), "c1".to_owned()).await.unwrap_err();
    assert_eq!((problem.status, problem.detail.contains("reservation 1")), (409, true), "{problem}");
    controller.brick_remove(change, "c4".to_owned()).await.unwrap();
}

#[tokio::test]
async fn what_nobody_applies_expires() {
    let (_state, controller, change) = rack().await;
    let new = ReservationNew { apply: false, expires_s: Some(1), ..gib(1, LatencyClass::Tray) };
    let reserve = controller.reservation_create(change.clone(), who(), new).await.unwrap();
    ended(&controller, &reserve).await;
    let id = reserve.target.parse().unwrap();
    assert_eq!(controller.reservation_show(who(), id).await.unwrap().state, "reserved");
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    let problem = controller.reservation_apply(change, who(), id).await.unwrap_err();
    assert_eq!((problem.status, problem.detail.contains("expired")), (404, true), "{problem}");
}

#[tokio::test]
async fn projects_do_not_see_each_other_and_keep_to_their_quota() {
    let state = tempdir().unwrap();
    let mut config = ControllerConfig::new(state.path());
    config.quotas =
        serde_json::from_str(r#"{"default": {}, "projects": {"p1": {"tray": 1073741824}}}"#).unwrap();
    let controller = Controller::start(config, Arc::new(Bricks::default())).await.unwrap();
    register(&controller).await;
    let change = change(&controller).await;
    let member = |project: &str| Who {
        name: "alice".to_owned(),
        role: Role::Member,
        project: Some(project.to_owned()),
    };
    let reserve = controller
        .reservation_create(change.clone(), member("p1"), gib(1, LatencyClass::Tray))
        .await
        .unwrap();
    ended(&controller, &reserve).await;
    let problem = controller.reservation_preview(member("p1"), gib(1, LatencyClass::Tray)).await.unwrap_err();
    assert_eq!((problem.status, problem.detail.contains("p1")), (409, true), "{problem}");
    assert!(controller.reservation_list(member("p2")).await.unwrap().is_empty());
    assert_eq!(controller.operation_show(member("p2"), reserve.id).await.unwrap_err().status, 404);
    let release = controller.reservation_release(change, member("p2"), 1).await.unwrap_err();
    assert_eq!(release.status, 404);
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_again() {
    let state = tempdir().unwrap();
    let config = ControllerConfig { queue: 0, ..ControllerConfig::new(state.path()) };
    let controller = Controller::start(config, Arc::new(Bricks::default())).await.unwrap();
    let change = change(&controller).await;
    let new = ReservationNew::memory(None, Bytes(4096), LatencyClass::Rack);
    let problem = controller.reservation_create(change, who(), new).await.unwrap_err();
    assert_eq!((problem.status, problem.retry_after_s), (503, Some(1)));
}
