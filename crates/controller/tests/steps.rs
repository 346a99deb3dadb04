//! Whatever happens to a controller or to a step: in the end a reservation is there as a whole, or nothing of it is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Bricks, change, ended, gib, register, settled, start, who};
use rackmem_api::controller::{ControllerApi, DrainRequest};
use rackmem_api::{LatencyClass, OperationState};
use tempfile::tempdir;

/// What one reservation of the example holds on the bricks: a segment, a circuit, an entry.
const HELD: usize = 3;

#[tokio::test]
async fn a_reservation_lives_and_leaves_nothing() {
    for twice in [false, true] {
        let (state, bricks) = (tempdir().unwrap(), Arc::new(Bricks { twice, ..Bricks::default() }));
        let controller = start(state.path(), &bricks, None).await;
        register(&controller).await;
        let change = change(&controller).await;
        let reserve =
            controller.reservation_create(change.clone(), who(), gib(1, LatencyClass::Tray)).await.unwrap();
        assert_eq!(ended(&controller, &reserve).await.state, OperationState::Done);
        assert_eq!(bricks.held(), HELD);
        let id = reserve.target.parse().unwrap();
        assert_eq!(controller.reservation_show(who(), id).await.unwrap().state, "applied");
        let release = controller.reservation_release(change, who(), id).await.unwrap();
        assert_eq!(ended(&controller, &release).await.state, OperationState::Done);
        assert_eq!(bricks.held(), 0);
        assert_eq!(controller.reservation_show(who(), id).await.unwrap_err().status, 404);
    }
}

#[tokio::test]
async fn each_step_that_fails_is_undone() {
    for fails_at in 1..=4 {
        let (state, bricks) =
            (tempdir().unwrap(), Arc::new(Bricks { fails_at: fails_at.into(), ..Bricks::default() }));
        let controller = start(state.path(), &bricks, None).await;
        register(&controller).await;
        let change = change(&controller).await;
        let reserve = controller.reservation_create(change, who(), gib(1, LatencyClass::Tray)).await.unwrap();
        let reserve = ended(&controller, &reserve).await;
        assert_eq!(reserve.state, OperationState::Failed, "step {fails_at}");
        assert!(reserve.error.unwrap().detail.contains("told to fail"));
        assert_eq!(bricks.held(), 0, "step {fails_at}");
        assert!(controller.reservation_list(who()).await.unwrap().is_empty());
    }
}

/// The pages of a reservation move to another brick, or stay where they are.
#[tokio::test]
async fn a_drain_moves_pages_or_leaves_them() {
    const STEPS: usize = 7;
    for (twice, fails_at) in (0..=STEPS).map(|step| (false, step)).chain([(true, 0), (true, 4)]) {
        let (state, bricks) = (tempdir().unwrap(), Arc::new(Bricks { twice, ..Bricks::default() }));
        let controller = start(state.path(), &bricks, None).await;
        register(&controller).await;
        let change = change(&controller).await;
        let reserve =
            controller.reservation_create(change.clone(), who(), gib(1, LatencyClass::Rack)).await.unwrap();
        assert_eq!(ended(&controller, &reserve).await.state, OperationState::Done);
        let id: u64 = reserve.target.parse().unwrap();
        let before = controller.reservation_show(who(), id).await.unwrap();
        let brick = before.mappings[0].segment.brick.clone();
        if fails_at > 0 {
            bricks.fail_after(fails_at);
        }
        let request = DrainRequest { draining: true, lost: false };
        let drain = controller.brick_drain(change.clone(), brick.clone(), request).await.unwrap();
        let drain = ended(&controller, &drain).await;
        let when = format!("step {fails_at}, twice: {twice}: {drain:?}");
        let after = controller.reservation_show(who(), id).await.unwrap();
        assert_eq!(bricks.held(), HELD, "{when}");
        // Once the pages have moved, what is left is done however often it fails.
        if (1..=4).contains(&fails_at) {
            assert_eq!(drain.state, OperationState::Failed, "{when}");
            assert_eq!(after.mappings, before.mappings, "{when}");
        } else {
            assert_eq!(drain.state, OperationState::Done, "{when}");
            assert!(after.mappings.iter().all(|mapping| mapping.segment.brick != brick), "{when}");
        }
        let lie: Vec<_> = bricks.pages.lock().unwrap().iter().map(ToString::to_string).collect();
        let reserved: Vec<_> = after.mappings.iter().map(|mapping| mapping.segment.id.clone()).collect();
        assert_eq!((lie, bricks.lost.lock().unwrap().len()), (reserved, 0), "{when}");
        let release = controller.reservation_release(change, who(), id).await.unwrap();
        assert_eq!(ended(&controller, &release).await.state, OperationState::Done);
        assert_eq!((bricks.held(), bricks.lost.lock().unwrap().len()), (0, 0), "{when}");
    }
}

/// The store takes `changes` and then no more; a second controller goes on with what is on the disk.
#[test]
fn a_controller_that_dies_after_any_record_is_followed_by_one_that_finishes() {
    for changes in 1..=16 {
        let (state, bricks) = (tempdir().unwrap(), Arc::new(Bricks::default()));
        let life =
            || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let first = life();
        first.block_on(async {
            let controller = start(state.path(), &bricks, Some(changes)).await;
            let work = async {
                register(&controller).await;
                let change = change(&controller).await;
                let new = gib(1, LatencyClass::Tray);
                let reserve = controller.reservation_create(change.clone(), who(), new).await.unwrap();
                let id = reserve.target.parse().unwrap();
                ended(&controller, &reserve).await;
                let release = controller.reservation_release(change, who(), id).await.unwrap();
                ended(&controller, &release).await;
            };
            // It hangs where the store stopped; nobody waits for the dead.
            let _ = tokio::time::timeout(Duration::from_millis(400), work).await;
        });
        first.shutdown_timeout(Duration::from_secs(5));
        life().block_on(async {
            let controller = start(state.path(), &bricks, None).await;
            for operation in settled(&controller).await {
                assert_eq!(operation.state, OperationState::Done, "after {changes} changes: {operation:?}");
            }
            let reserved = controller.reservation_list(who()).await.unwrap().len();
            assert_eq!(bricks.held(), reserved * HELD, "after {changes} changes");
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_accepted_and_nothing_of_it_is_lost() {
    const BURST: usize = 10_000;
    let (state, bricks) = (tempdir().unwrap(), Arc::new(Bricks::default()));
    let controller = Arc::new(start(state.path(), &bricks, None).await);
    register(&controller).await;
    let change = change(&controller).await;
    let page = rackmem_types::Bytes(4096);
    let asked = (0..BURST).map(|_| {
        let (controller, change) = (Arc::clone(&controller), change.clone());
        let new = rackmem_api::controller::ReservationNew::memory(None, page, LatencyClass::Rack);
        tokio::spawn(async move { controller.reservation_create(change, who(), new).await })
    });
    let asked: Vec<_> = asked.collect();
    let mut accepted = Vec::new();
    for answer in asked {
        accepted.push(answer.await.unwrap().unwrap());
    }
    assert_eq!(accepted.len(), BURST);
    for operation in &accepted {
        // More than the NetPort tables hold: some are refused, with a reason; none is forgotten.
        let ended = ended(&controller, operation).await;
        assert!(ended.state == OperationState::Done || ended.error.is_some());
    }
}
