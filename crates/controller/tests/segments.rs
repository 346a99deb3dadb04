//! Reservations on real memory servers: whatever happens to a step, to the controller or to a server, a segment is there exactly
//! as long as its reservation is. The agents are simulated.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::Duration;

use common::clumsy::Clumsy;
use common::pool::{HALF, HALF_PAGES, Rig, release, reserve, runtime, until, watching};
use common::{ended, register_file, settled, start, who};
use rackmem_api::OperationState;
use rackmem_api::controller::ControllerApi;
use rackmem_far::Segments;

#[test]
fn a_segment_is_there_as_long_as_its_reservation() {
    for twice in [false, true] {
        let rig = Rig::new();
        let life = runtime();
        let controller = life.block_on(start(&rig.state(), &Clumsy::new(twice, 0), None));
        life.block_on(async {
            register_file(&controller, &rig.file()).await;
            let done = ended(&controller, &reserve(&controller, HALF).await).await;
            assert_eq!(done.state, OperationState::Done, "{done:?}");
        });
        let listed = rig.listed();
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!((listed[0].name.as_str(), listed[0].pages, listed[0].attached), ("s1.0", HALF_PAGES, 0));
        let table = rig.table();
        assert_eq!(table[0].entry.segment.map(|segment| segment.0), Some(listed[0].id));
        assert_eq!(table[0].entry.range(), 0..HALF.0);
        assert_eq!(life.block_on(release(&controller, 1)).state, OperationState::Done);
        assert_eq!((rig.listed(), rig.table()), (Vec::new(), Vec::new()));
    }
}

#[test]
fn whatever_step_fails_no_segment_is_left() {
    for fails_at in 1..=3 {
        let rig = Rig::new();
        let life = runtime();
        life.block_on(async {
            let controller = start(&rig.state(), &Clumsy::new(false, fails_at), None).await;
            register_file(&controller, &rig.file()).await;
            let failed = ended(&controller, &reserve(&controller, HALF).await).await;
            assert_eq!(failed.state, OperationState::Failed, "step {fails_at}");
        });
        assert_eq!((rig.listed(), rig.table()), (Vec::new(), Vec::new()), "step {fails_at}");
    }
}

#[test]
fn a_server_that_refuses_is_told_and_nothing_is_left() {
    let rig = Rig::new();
    // Somebody else came first, and the controller has not looked since.
    let (other, owner) = (rig.segments(), Segments::owner());
    let theirs = other.create("somebody else's", HALF_PAGES + 1, owner, Duration::from_secs(60)).unwrap();
    let life = runtime();
    life.block_on(async {
        let controller = start(&rig.state(), &Clumsy::blind(), None).await;
        register_file(&controller, &rig.file()).await;
        let failed = ended(&controller, &reserve(&controller, HALF).await).await;
        let problem = failed.error.unwrap();
        assert_eq!((failed.state, problem.status), (OperationState::Failed, 409), "{problem}");
        assert!(problem.detail.contains("is full: 8191 pages are free"), "{problem}");
        assert!(controller.reservation_list(who()).await.unwrap().is_empty());
    });
    assert_eq!(rig.listed().iter().map(|listed| listed.id).collect::<Vec<_>>(), [theirs]);
}

/// The store takes `changes` and then no more; a second controller goes on with what is on the disk.
#[test]
fn after_a_crash_at_any_record_there_is_one_segment_or_none() {
    for changes in 1..=18 {
        let rig = Rig::new();
        let first = runtime();
        first.block_on(async {
            let controller = start(&rig.state(), &Clumsy::new(false, 0), Some(changes)).await;
            let work = async {
                register_file(&controller, &rig.file()).await;
                ended(&controller, &reserve(&controller, HALF).await).await;
                release(&controller, 1).await;
            };
            // It hangs where the store stopped; nobody waits for the dead.
            let _ = tokio::time::timeout(Duration::from_millis(400), work).await;
        });
        first.shutdown_timeout(Duration::from_secs(5));
        let reserved = runtime().block_on(async {
            let controller = start(&rig.state(), &Clumsy::new(false, 0), None).await;
            for operation in settled(&controller).await {
                assert_eq!(operation.state, OperationState::Done, "after {changes} changes: {operation:?}");
            }
            controller.reservation_list(who()).await.unwrap().len()
        });
        let (listed, table) = (rig.listed(), rig.table());
        assert_eq!((listed.len(), table.len()), (reserved, reserved), "after {changes} changes: {listed:?}");
        if let (Some(listed), Some(entry)) = (listed.first(), table.first()) {
            assert_eq!(entry.entry.segment.map(|segment| segment.0), Some(listed.id));
        }
    }
}

#[test]
fn what_could_not_be_destroyed_goes_when_its_server_answers_again() {
    let rig = Rig::new();
    let life = runtime();
    let controller = life.block_on(watching(&rig.state(), &Clumsy::new(false, 0), None));
    life.block_on(async {
        register_file(&controller, &rig.file()).await;
        ended(&controller, &reserve(&controller, HALF).await).await;
    });
    // It lives, and nobody finds it.
    let (here, away) = (rig.path("m1.sock"), rig.path("away.sock"));
    std::fs::rename(&here, &away).unwrap();
    assert_eq!(life.block_on(release(&controller, 1)).state, OperationState::Done);
    let left = rig.segments_at("away.sock").pool().unwrap().segments;
    assert_eq!(left.len(), 1, "nobody could destroy it");
    std::fs::rename(&away, &here).unwrap();
    until("it is destroyed", || rig.listed().is_empty());
}
