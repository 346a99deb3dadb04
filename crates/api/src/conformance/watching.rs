//! Events, lists of operations, consoles and logs.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::{Failure, Subject, ensure, refused, told};
use crate::agent::{AgentClient, LogQuery, VmSpec};
use crate::event::{Event, EventId};
use crate::operation::{Operation, OperationFilter, OperationState};
use crate::problem::ProblemType;

/// How long an event may take that has happened already.
const PROMPT: Duration = Duration::from_secs(10);

/// Events up to the one with which the operation ends.
async fn until_end(
    client: &AgentClient,
    after: Option<EventId>,
    of: &Operation,
) -> Result<Vec<Event>, Failure> {
    let mut stream = client.events(after).await.map_err(told)?;
    let mut read = Vec::new();
    loop {
        let next =
            timeout(PROMPT, stream.next()).await.map_err(|_| format!("no event in {PROMPT:?}: {read:?}"))?;
        let event = next.ok_or("the event stream ended")?.map_err(told)?;
        let ends = event.operation.as_ref().is_some_and(|it| it.id == of.id && it.state.is_final());
        read.push(event);
        if ends {
            return Ok(read);
        }
    }
}

pub(super) async fn events_are_resumed(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let mut live = client.events(None).await.map_err(told)?;
    let spec = VmSpec { start: false, ..subject.spec("conf-events")? };
    let create = subject.done(&client, client.vm_create(&spec).await).await?;
    let first = timeout(PROMPT, live.next()).await.map_err(|_| "no event of a create".to_owned())?;
    let first = first.ok_or("the event stream ended")?.map_err(told)?;
    drop(live);
    // From just before it: the same event again, and all that followed, each number once and in order.
    let read = until_end(&client, Some(first.id - 1), &create).await?;
    ensure(read.first().is_some_and(|event| event.id == first.id), || {
        format!("resumed at {:?}", read.first())
    })?;
    ensure(read.is_sorted_by(|one, other| one.id < other.id), || format!("out of order: {read:?}"))?;
    let last = read.last().ok_or("no events")?;
    ensure(last.kind == "operation.done" && last.target == spec.name.as_str(), || format!("{last:?}"))?;
    let rest = until_end(&client, Some(last.id - 1), &create).await?;
    ensure(rest.len() == 1, || format!("resumed before its end: {rest:?}"))?;
    subject.gone(&client, &spec.name).await
}

pub(super) async fn operations_are_listed(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let spec = VmSpec { start: false, ..subject.spec("conf-list")? };
    let create = subject.done(&client, client.vm_create(&spec).await).await?;
    subject.gone(&client, &spec.name).await?;
    let of_it = OperationFilter { target: Some(spec.name.to_string()), ..OperationFilter::default() };
    let listed = client.operation_list(&of_it).await.map_err(told)?;
    ensure(listed.iter().any(|one| one.id == create.id), || format!("the create is not in {listed:?}"))?;
    ensure(listed.iter().all(|one| one.target == spec.name.as_str()), || format!("others in {listed:?}"))?;
    let newest_first = listed.is_sorted_by(|one, other| one.created_ms >= other.created_ms);
    ensure(newest_first, || format!("not the newest first: {listed:?}"))?;
    let one =
        client.operation_list(&OperationFilter { limit: Some(1), ..of_it.clone() }).await.map_err(told)?;
    ensure(one.len() == 1, || format!("limit 1 gave {}", one.len()))?;
    let running = OperationFilter { state: Some(OperationState::Running), ..of_it };
    let running = client.operation_list(&running).await.map_err(told)?;
    ensure(running.is_empty(), || format!("still running: {running:?}"))?;
    let shown = client.operation_show(create.id).await.map_err(told)?;
    ensure(shown.state == OperationState::Done && shown.error.is_none(), || format!("{shown:?}"))
}

pub(super) async fn a_console_opens(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let spec = subject.spec("conf-console")?;
    subject.done(&client, client.vm_create(&spec).await).await?;
    let mut console = client.vm_console(&spec.name).await.map_err(told)?;
    console.0.write_all(b"\n").await.map_err(|error| format!("the console takes nothing: {error}"))?;
    drop(console);
    client.vm_log(&spec.name, LogQuery::default()).await.map_err(told)?;
    let tail =
        client.vm_log(&spec.name, LogQuery { tail: Some(1), ..LogQuery::default() }).await.map_err(told)?;
    ensure(tail.len() <= 1, || format!("asked for 1 byte, got {}", tail.len()))?;
    subject.gone(&client, &spec.name).await?;
    refused(client.vm_console(&spec.name).await.map(|_| ()), ProblemType::NotFound)
}
