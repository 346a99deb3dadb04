//! Memory that its server has lost: it is noticed, and a machine that does not run gets other memory when it is started. The
//! memory servers are real, the agents are simulated.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::Duration;

use common::clumsy::Clumsy;
use common::pool::{HALF, Rig, release, reserve, runtime, until, watching};
use common::{change, ended, register_file, settled, who};
use rackmem_api::agent::StopRequest;
use rackmem_api::controller::{ControllerApi, MachineNew, MachineState, MachineView};
use rackmem_api::operation::OperationFilter;
use rackmem_api::{Operation, OperationState, VmName};
use rackmem_controller::Controller;
use tokio::runtime::Runtime;

#[test]
fn a_server_that_lost_its_segments_is_noticed_and_believed() {
    let mut rig = Rig::new();
    let life = runtime();
    let controller = life.block_on(watching(&rig.state(), &Clumsy::new(false, 0), None));
    life.block_on(async {
        register_file(&controller, &rig.file()).await;
        ended(&controller, &reserve(&controller, HALF).await).await;
    });
    let lost = || life.block_on(controller.reservation_show(who(), 1)).unwrap().mappings[0].lost;
    std::thread::sleep(Duration::from_millis(300));
    assert!(!lost(), "it is there");
    rig.server_stop();
    rig.server_start();
    until("the loss is noticed", lost);
    assert_eq!(life.block_on(release(&controller, 1)).state, OperationState::Done);
    let again = life.block_on(async {
        let reserve = reserve(&controller, HALF).await;
        ended(&controller, &reserve).await
    });
    assert_eq!(again.state, OperationState::Done, "{again:?}");
    assert_eq!(rig.listed().len(), 1);
}

#[test]
fn a_segment_that_somebody_destroyed_is_noticed() {
    let rig = Rig::new();
    let life = runtime();
    let controller = life.block_on(watching(&rig.state(), &Clumsy::new(false, 0), None));
    life.block_on(async {
        register_file(&controller, &rig.file()).await;
        ended(&controller, &reserve(&controller, HALF).await).await;
        // The secret is in the store, and an administrator may use it.
        let database = rig.state().join("controller.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database).read_only(true);
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        let (id, owner): (i64, Vec<u8>) =
            sqlx::query_as("SELECT id, owner FROM deeds").fetch_one(&pool).await.unwrap();
        rig.segments().destroy(id.cast_unsigned(), owner.try_into().unwrap()).unwrap();
    });
    until("the loss is noticed", || {
        life.block_on(controller.reservation_show(who(), 1)).unwrap().mappings[0].lost
    });
    let operations = life.block_on(controller.operation_list(who(), OperationFilter::default())).unwrap();
    assert!(operations.iter().all(|operation| operation.state == OperationState::Done), "{operations:?}");
}

fn web1() -> VmName {
    "web1".parse().unwrap()
}

async fn machine(controller: &Controller) -> MachineView {
    controller.vm_show(who(), web1()).await.unwrap()
}

async fn start(controller: &Controller) -> Operation {
    let asked = controller.vm_start(change(controller).await, who(), web1()).await.unwrap();
    ended(controller, &asked).await
}

/// A machine that has been stopped, and whose memory server has been started anew since.
fn stopped_and_lost(rig: &mut Rig, life: &Runtime, controller: &Controller) {
    life.block_on(async {
        register_file(controller, &rig.file()).await;
        let text = format!(
            r#"{{"name": "web1", "memory": {}, "local": 16777216, "class": "tray", "boot": {{"kernel": "/k"}}}}"#,
            HALF.0
        );
        let new: MachineNew = serde_json::from_str(&text).unwrap();
        let create = controller.vm_create(change(controller).await, who(), new).await.unwrap();
        let created = ended(controller, &create).await;
        assert_eq!(created.state, OperationState::Done, "{created:?}");
        let stop = controller.vm_stop(change(controller).await, who(), web1(), StopRequest::default());
        ended(controller, &stop.await.unwrap()).await;
    });
    rig.server_stop();
    rig.server_start();
    until("the loss is noticed", || life.block_on(machine(controller)).memory_lost == ["m1"]);
}

/// It runs, has its memory, and nothing is left of what was lost.
fn is_whole(rig: &Rig, life: &Runtime, controller: &Controller, when: &str) {
    let view = life.block_on(machine(controller));
    assert_eq!((view.state, view.far), (MachineState::Running, HALF), "{when}: {view:?}");
    assert_eq!((view.memory_lost.len(), view.memory_bricks), (0, vec!["m1".to_owned()]), "{when}");
    let reservation = life.block_on(controller.reservation_show(who(), view.reservation)).unwrap();
    assert_eq!(reservation.mappings.len(), 1, "{when}: {reservation:?}");
    let (listed, table) = (rig.listed(), rig.table());
    assert_eq!((listed.len(), table.len()), (1, 1), "{when}: {listed:?} {table:?}");
    assert_eq!(table[0].entry.segment.map(|segment| segment.0), Some(listed[0].id), "{when}");
    assert_eq!(table[0].vm, Some(web1()), "{when}");
    assert_eq!(view.machine.unwrap().attachments, [table[0].entry.id.clone()], "{when}");
}

#[test]
fn a_machine_whose_memory_was_lost_is_started_with_other_memory() {
    for twice in [false, true] {
        let mut rig = Rig::new();
        let life = runtime();
        let controller = life.block_on(watching(&rig.state(), &Clumsy::new(twice, 0), None));
        stopped_and_lost(&mut rig, &life, &controller);
        let started = life.block_on(start(&controller));
        assert_eq!(started.state, OperationState::Done, "{started:?}");
        is_whole(&rig, &life, &controller, "it was started");
        let delete = life.block_on(async {
            let asked = controller.vm_delete(change(&controller).await, who(), web1()).await.unwrap();
            ended(&controller, &asked).await
        });
        assert_eq!(delete.state, OperationState::Done, "{delete:?}");
        assert_eq!((rig.listed(), rig.table()), (Vec::new(), Vec::new()));
    }
}

#[test]
fn whatever_step_of_it_fails_the_machine_can_be_started_again() {
    // A segment, an entry, the machine's change from the one to the other: then there is only the way on.
    for fails_at in 1..=4 {
        let mut rig = Rig::new();
        let (life, hands) = (runtime(), Clumsy::new(false, 0));
        let controller = life.block_on(watching(&rig.state(), &hands, None));
        stopped_and_lost(&mut rig, &life, &controller);
        hands.fail_after(fails_at);
        let started = life.block_on(start(&controller));
        if fails_at < 4 {
            assert_eq!(started.state, OperationState::Failed, "step {fails_at}: {started:?}");
            let view = life.block_on(machine(&controller));
            assert_eq!((view.state, view.memory_lost.len()), (MachineState::Stopped, 1), "step {fails_at}");
            assert_eq!((rig.listed().len(), rig.table().len()), (0, 1), "step {fails_at}");
            let again = life.block_on(start(&controller));
            assert_eq!(again.state, OperationState::Done, "step {fails_at}: {again:?}");
        } else {
            assert_eq!(started.state, OperationState::Done, "{started:?}");
        }
        is_whole(&rig, &life, &controller, &format!("step {fails_at} failed"));
    }
}

/// The store takes `changes` and then no more; a second controller goes on with what is on the disk.
#[test]
fn after_a_crash_at_any_record_it_is_started_or_can_be() {
    for changes in 0..=16 {
        let mut rig = Rig::new();
        let life = runtime();
        let controller = life.block_on(watching(&rig.state(), &Clumsy::new(false, 0), None));
        stopped_and_lost(&mut rig, &life, &controller);
        drop(controller);
        life.shutdown_timeout(Duration::from_secs(5));
        let dies = runtime();
        dies.block_on(async {
            let controller = watching(&rig.state(), &Clumsy::new(false, 0), Some(changes)).await;
            // It hangs where the store stopped; nobody waits for the dead.
            let _ = tokio::time::timeout(Duration::from_millis(400), start(&controller)).await;
        });
        dies.shutdown_timeout(Duration::from_secs(5));
        let life = runtime();
        let controller = life.block_on(watching(&rig.state(), &Clumsy::new(false, 0), None));
        let when = format!("after {changes} changes");
        for operation in life.block_on(settled(&controller)) {
            assert_eq!(operation.state, OperationState::Done, "{when}: {operation:?}");
        }
        if life.block_on(machine(&controller)).state != MachineState::Running {
            let again = life.block_on(start(&controller));
            assert_eq!(again.state, OperationState::Done, "{when}: {again:?}");
        }
        is_whole(&rig, &life, &controller, &when);
    }
}
