//! A compute brick that was registered without an address: nobody can be asked there, which is told, and nothing is left or goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::Duration;

use common::agents::{controller, machine};
use common::{change, ended, register_file, who};
use rackmem_api::LatencyClass;
use rackmem_api::controller::{ControllerApi, ReservationNew};
use rackmem_api::{Operation, OperationState};
use rackmem_controller::Controller;
use rackmem_types::Bytes;
use tempfile::tempdir;

const RACK: &str = r#"
rack = [{ name = "r1" }]
tray = [{ name = "t1", rack = "r1" }]
compute = [{ name = "c1", tray = "t1", cores = 4, local = "8GiB", ports = 1 }]
memory = [{ name = "m1", tray = "t1", size = "8GiB", ports = 1, address = "sim:10.0.0.1:7070" }]
switch = [{ name = "s1", tray = "t1", kind = "circuit", ports = 2, address = "sim:2" }]
cable = [{ ends = ["c1:0", "s1:0"] }, { ends = ["m1:0", "s1:1"] }]
"#;

async fn fails(controller: &Controller, asked: &Operation) {
    let end = tokio::time::timeout(Duration::from_secs(20), ended(controller, asked));
    let end = end.await.expect("it goes on for ever");
    assert_eq!(end.state, OperationState::Failed, "{end:?}");
    assert!(end.error.unwrap().detail.contains("without an address"));
    assert_eq!(controller.reservation_list(who()).await.unwrap(), []);
    assert!(controller.topology(who()).await.unwrap().circuits.is_empty());
}

#[tokio::test]
async fn what_needs_a_brick_without_an_address_fails_and_leaves_nothing() {
    let state = tempdir().unwrap();
    let controller = controller(state.path(), Duration::from_secs(3600)).await;
    register_file(&controller, RACK).await;
    let new = ReservationNew::memory(Some("c1".to_owned()), Bytes(1 << 30), LatencyClass::Tray);
    let asked = controller.reservation_create(change(&controller).await, who(), new).await.unwrap();
    fails(&controller, &asked).await;
    let asked = controller.vm_create(change(&controller).await, who(), machine("web1")).await.unwrap();
    fails(&controller, &asked).await;
    assert!(controller.vm_list(who()).await.unwrap().is_empty());
}
