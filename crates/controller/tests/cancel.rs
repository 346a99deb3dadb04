//! What an agent takes long for is cancelled at the agent: the operation ends soon, and the machine is as it was.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::{Duration, Instant};

use common::agents::{Served, controller, machine};
use common::{change, ended, register_file, who};
use rackmem_agent_sim::Latencies;
use rackmem_api::agent::{AgentApi, StopRequest, VmState};
use rackmem_api::controller::{ControllerApi, MachineResize, MachineState};
use rackmem_api::operation::OperationFilter;
use rackmem_api::{Operation, OperationState, VmName};
use rackmem_controller::Controller;
use rackmem_types::Bytes;

/// Longer than any test may take.
const FOR_EVER: std::ops::RangeInclusive<u64> = 600_000..=600_000;

const SEVERAL_LOOKS: Duration = Duration::from_secs(5);

fn web1() -> VmName {
    "web1".parse().unwrap()
}

async fn world(latencies: Latencies) -> (Served, Controller) {
    let served = Served::new(latencies);
    let controller = controller(&served.directory.path().join("state"), Duration::from_secs(3600)).await;
    register_file(&controller, &served.rack()).await;
    (served, controller)
}

async fn create(controller: &Controller) -> Operation {
    controller.vm_create(change(controller).await, who(), machine("web1")).await.unwrap()
}

/// Waits until the agent is at something.
async fn is_at(served: &Served, kind: &str) {
    for _ in 0..500 {
        let running = OperationFilter { state: Some(OperationState::Running), ..OperationFilter::default() };
        let operations = served.agent.operation_list(running).await.unwrap();
        if operations.iter().any(|operation| operation.kind == kind) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the agent never began {kind}");
}

async fn cancelled(controller: &Controller, operation: &Operation) {
    let began = Instant::now();
    let change = change(controller).await;
    controller.operation_cancel(change, who(), operation.id).await.unwrap();
    let ended = ended(controller, operation).await;
    assert_eq!(ended.state, OperationState::Cancelled, "{ended:?}");
    assert!(ended.error.unwrap().detail.contains("cancelled by test"));
    assert!(began.elapsed() < SEVERAL_LOOKS, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_stop_whose_guest_does_not_go_down_is_cancelled_and_then_forced() {
    let (served, controller) = world(Latencies { shut_down_ms: FOR_EVER, ..Latencies::none() }).await;
    assert_eq!(ended(&controller, &create(&controller).await).await.state, OperationState::Done);
    let controller = &controller;
    let stop = |how| async move {
        let change = change(controller).await;
        controller.vm_stop(change, who(), web1(), how).await
    };
    let force = StopRequest { force: true, ..StopRequest::default() };
    let waits = stop(StopRequest::default()).await.unwrap();
    is_at(&served, "vm.stop").await;
    assert_eq!(stop(force).await.unwrap_err().status, 409, "it is busy until the first one has ended");
    cancelled(controller, &waits).await;
    assert_eq!(served.agent.vm_show(web1()).await.unwrap().state, VmState::Running);
    assert_eq!(controller.vm_list(who()).await.unwrap()[0].state, MachineState::Running);
    let forced = ended(controller, &stop(force).await.unwrap()).await;
    assert_eq!(forced.state, OperationState::Done, "{forced:?}");
    assert_eq!(served.agent.vm_show(web1()).await.unwrap().state, VmState::Stopped);
}

#[tokio::test]
async fn a_stop_that_an_earlier_controller_began_is_cancelled_too() {
    let (served, first) = world(Latencies { shut_down_ms: FOR_EVER, ..Latencies::none() }).await;
    ended(&first, &create(&first).await).await;
    let change = change(&first).await;
    let stop = first.vm_stop(change, who(), web1(), StopRequest::default()).await.unwrap();
    is_at(&served, "vm.stop").await;
    // What the first one knew on its disk, as if it had been killed now.
    let copy = served.directory.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(served.directory.path().join("state")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let second = controller(&copy, Duration::from_secs(3600)).await;
    cancelled(&second, &stop).await;
    assert_eq!(served.agent.vm_show(web1()).await.unwrap().state, VmState::Running);
}

#[tokio::test]
async fn a_resize_that_waits_for_memory_is_cancelled_and_nothing_more_is_reserved() {
    let (served, controller) = world(Latencies { gib_ms: FOR_EVER, ..Latencies::none() }).await;
    ended(&controller, &create(&controller).await).await;
    let reserved = controller.reservation_list(who()).await.unwrap();
    let to = MachineResize { memory: Bytes(2 << 30) };
    let resize = controller.vm_resize(change(&controller).await, who(), web1(), to).await.unwrap();
    is_at(&served, "vm.resize").await;
    cancelled(&controller, &resize).await;
    assert_eq!(served.agent.vm_show(web1()).await.unwrap().memory.target, Bytes(1 << 30));
    assert_eq!(controller.reservation_list(who()).await.unwrap(), reserved);
    assert_eq!(served.agent.attachment_list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_machine_that_is_being_made_is_cancelled_and_leaves_nothing() {
    let (served, controller) = world(Latencies { boot_ms: FOR_EVER, ..Latencies::none() }).await;
    let create = create(&controller).await;
    is_at(&served, "vm.create").await;
    cancelled(&controller, &create).await;
    assert!(served.agent.vm_list().await.unwrap().is_empty());
    assert!(served.agent.attachment_list().await.unwrap().is_empty());
    assert!(controller.reservation_list(who()).await.unwrap().is_empty());
    assert!(controller.vm_list(who()).await.unwrap().is_empty());
}
