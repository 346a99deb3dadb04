//! Two controllers over the same brick: the older one's operations end, and say why.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::Duration;

use common::agents::{Served, controller, machine};
use common::{change, ended, gib, register_file, who};
use futures_util::StreamExt;
use rackmem_agent_sim::Latencies;
use rackmem_api::agent::AgentApi;
use rackmem_api::controller::ControllerApi;
use rackmem_api::problem::ProblemType;
use rackmem_api::{Event, LatencyClass, Operation, OperationState};
use rackmem_controller::Controller;

const SELDOM: Duration = Duration::from_secs(3600);

/// A controller, and an agent that obeyed it.
async fn world(latencies: Latencies) -> (Served, Controller) {
    let served = Served::new(latencies);
    let first = controller(&served.directory.path().join("first"), SELDOM).await;
    register_file(&first, &served.rack()).await;
    (served, first)
}

/// Another controller reserves on the brick, and so rules it.
async fn overtake(served: &Served) -> Controller {
    // Reigns of new controllers are told apart by the second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let second = controller(&served.directory.path().join("second"), SELDOM).await;
    register_file(&second, &served.rack()).await;
    reserved(&second).await;
    let reign = second.controller().await.unwrap().generation;
    assert_eq!(served.agent.host().await.unwrap().generation, reign);
    second
}

async fn reserved(controller: &Controller) -> Operation {
    let change = change(controller).await;
    let asked = controller.reservation_create(change, who(), gib(1, LatencyClass::Tray)).await.unwrap();
    ended(controller, &asked).await
}

async fn overtakings(controller: &Controller) -> Vec<Event> {
    let mut all = controller.events(who(), Some(0)).await.unwrap();
    let mut found = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(300), all.next()).await {
        found.extend(Some(event).filter(|event| event.kind == "controller.overtaken"));
    }
    found
}

#[tokio::test]
async fn what_another_controller_rules_is_not_undone_for_ever() {
    let boot_ms = 600_000..=600_000;
    let (served, first) = world(Latencies { boot_ms, ..Latencies::none() }).await;
    let create = first.vm_create(change(&first).await, who(), machine("web1")).await.unwrap();
    while served.agent.vm_list().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let _second = overtake(&served).await;
    first.operation_cancel(change(&first).await, who(), create.id).await.unwrap();
    let ended = ended(&first, &create).await;
    assert_eq!(ended.state, OperationState::Failed, "{ended:?}");
    let error = ended.error.unwrap();
    assert_eq!(error.kind, ProblemType::StaleGeneration);
    assert!(error.detail.contains("'c1' is ruled by another controller now"), "{error}");
    let told = overtakings(&first).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].target, "c1");
    assert_eq!(served.agent.vm_list().await.unwrap().len(), 1, "what the other rules stays");
    assert!(first.vm_list(who()).await.unwrap().is_empty());
    // What is asked next fails at once, and is not told again.
    let again = reserved(&first).await;
    assert_eq!(again.error.map(|error| error.kind), Some(ProblemType::StaleGeneration));
    assert!(first.reservation_list(who()).await.unwrap().is_empty());
    assert_eq!(overtakings(&first).await.len(), 1);
}

#[tokio::test]
async fn a_release_of_what_another_controller_rules_stands_still_and_says_why() {
    let (served, first) = world(Latencies::none()).await;
    assert_eq!(reserved(&first).await.state, OperationState::Done);
    let _second = overtake(&served).await;
    let release = first.reservation_release(change(&first).await, who(), 1).await.unwrap();
    let stands = || async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        first.operation_show(who(), release.id).await.unwrap()
    };
    let stood = stands().await;
    assert_eq!(stood.state, OperationState::Running);
    assert!(stood.step.clone().unwrap().contains("is ruled by another controller"), "{stood:?}");
    assert_eq!(stands().await, stood, "nothing is tried again");
    assert_eq!(overtakings(&first).await.len(), 1);
    assert_eq!(served.agent.attachment_list().await.unwrap().len(), 1);
}
