//! Generations, idempotency keys and cancelling.

use super::{Failure, Subject, ensure, refused, told};
use crate::agent::VmSpec;
use crate::error::ApiError;
use crate::generation::Generation;
use crate::operation::OperationState;
use crate::problem::ProblemType;

pub(super) async fn older_generations_are_refused(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let present = client.host().await.map_err(told)?.generation;
    let newer = client.clone().under(Generation(present.0 + 5));
    let spec = VmSpec { start: false, ..subject.spec("conf-reign")? };
    subject.done(&newer, newer.vm_create(&spec).await).await?;
    let shown = client.host().await.map_err(told)?.generation;
    ensure(shown.0 == present.0 + 5, || format!("generation {} is shown after {}", shown.0, present.0 + 5))?;
    match client.vm_delete(&spec.name).await {
        Err(ApiError::Problem(problem)) if problem.kind == ProblemType::StaleGeneration => {
            ensure(problem.generation == Some(shown.0), || {
                format!("the present one is not named: {problem:?}")
            })?;
        }
        other => return Err(format!("an older generation may delete: {other:?}")),
    }
    client.vm_show(&spec.name).await.map_err(told)?;
    // A refused change makes the generation known as well.
    let newest = client.clone().under(Generation(present.0 + 6));
    refused(newest.vm_create(&spec).await, ProblemType::Exists)?;
    refused(newer.vm_delete(&spec.name).await, ProblemType::StaleGeneration)?;
    subject.gone(&newest, &spec.name).await
}

pub(super) async fn a_request_sent_twice_is_done_once(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let spec = VmSpec { start: false, ..subject.spec("conf-twice")? };
    let key = format!("conf-{}", uuid::Uuid::new_v4());
    let keyed = client.clone().with_key(key);
    let first = keyed.vm_create(&spec).await.map_err(told)?;
    let again = keyed.vm_create(&spec).await.map_err(told)?;
    ensure(first.id == again.id, || format!("two operations: {} and {}", first.id, again.id))?;
    subject.done(&client, Ok(first.clone())).await?;
    let later = keyed.vm_create(&spec).await.map_err(told)?;
    ensure(later.id == first.id, || "a repetition after its end began another operation".to_owned())?;
    let other = VmSpec { vcpus: spec.vcpus + 1, ..spec.clone() };
    refused(keyed.vm_create(&other).await, ProblemType::KeyReused)?;
    subject.gone(&client, &spec.name).await
}

pub(super) async fn what_has_ended_is_not_cancelled(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let spec = VmSpec { start: false, ..subject.spec("conf-over")? };
    let create = subject.done(&client, client.vm_create(&spec).await).await?;
    let after = client.operation_cancel(create.id).await.map_err(told)?;
    ensure(after.id == create.id && after.state == OperationState::Done, || format!("{after:?}"))?;
    client.vm_show(&spec.name).await.map_err(told)?;
    subject.gone(&client, &spec.name).await
}

pub(super) async fn a_cancelled_create_leaves_nothing(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let before = client.host().await.map_err(told)?.memory.promised;
    let spec = subject.spec("conf-cancel")?;
    let create = client.vm_create(&spec).await.map_err(told)?;
    client.operation_cancel(create.id).await.map_err(told)?;
    let ended = subject.ended(&client, &create).await?;
    // It may have been done before it could be cancelled; then the machine is there, and whole.
    if ended.state == OperationState::Done {
        return subject.gone(&client, &spec.name).await;
    }
    ensure(ended.state == OperationState::Cancelled, || format!("{ended:?}"))?;
    refused(client.vm_show(&spec.name).await, ProblemType::NotFound)?;
    let after = client.host().await.map_err(told)?.memory.promised;
    ensure(after == before, || format!("{after} is promised, before it was {before}"))
}
