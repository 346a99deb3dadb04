//! Resizing, and following the guest's need.

use rackmem_types::Bytes;

use super::{Failure, Subject, ensure, refused, told};
use crate::agent::{ElasticBounds, ResizeRequest};
use crate::problem::ProblemType;

fn to(memory: Bytes) -> ResizeRequest {
    ResizeRequest { memory: Some(memory), ..ResizeRequest::default() }
}

pub(super) async fn a_plan_changes_nothing(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let spec = subject.spec("conf-plan")?;
    let max = spec.memory_max.unwrap_or(spec.memory);
    subject.done(&client, client.vm_create(&spec).await).await?;
    let plan = client.vm_resize_plan(&spec.name, to(max)).await.map_err(told)?;
    ensure(plan.from == spec.memory && plan.to == max && !plan.restart, || format!("{plan:?}"))?;
    ensure(!plan.steps.is_empty() && plan.steps.iter().all(|step| step.from != step.to), || {
        format!("{plan:?}")
    })?;
    let nothing = client.vm_resize_plan(&spec.name, to(spec.memory)).await.map_err(told)?;
    ensure(nothing.steps.is_empty(), || format!("steps to stay as it is: {nothing:?}"))?;
    let vm = client.vm_show(&spec.name).await.map_err(told)?;
    ensure(vm.memory.size == spec.memory && vm.memory.target == spec.memory, || format!("{:?}", vm.memory))?;
    subject.gone(&client, &spec.name).await
}

pub(super) async fn a_machine_grows_and_shrinks(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let spec = subject.spec("conf-grow")?;
    let max = spec.memory_max.unwrap_or(spec.memory);
    subject.done(&client, client.vm_create(&spec).await).await?;
    subject.done(&client, client.vm_resize(&spec.name, to(max)).await).await?;
    let grown = client.vm_show(&spec.name).await.map_err(told)?.memory;
    ensure(grown.size == max && grown.target == max, || format!("not grown to {max}: {grown:?}"))?;
    let shrink = subject.done(&client, client.vm_resize(&spec.name, to(spec.memory)).await).await?;
    let shrunk = client.vm_show(&spec.name).await.map_err(told)?.memory;
    // A guest may keep what it uses; then the operation says so.
    ensure(shrunk.size == spec.memory || shrink.note.is_some(), || format!("{shrunk:?} and no note"))?;
    ensure(shrunk.size <= max && shrunk.target == spec.memory, || format!("{shrunk:?}"))?;
    let local = spec.local.map(|local| Bytes(local.0 / 2));
    if let Some(local) = local {
        let request = ResizeRequest { local: Some(local), ..ResizeRequest::default() };
        subject.done(&client, client.vm_resize(&spec.name, request).await).await?;
        let limited = client.vm_show(&spec.name).await.map_err(told)?.memory;
        ensure(limited.local_limit == Some(local), || format!("{limited:?}"))?;
    }
    subject.gone(&client, &spec.name).await
}

pub(super) async fn limits_of_memory_are_kept(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let spec = subject.spec("conf-limits")?;
    let max = spec.memory_max.unwrap_or(spec.memory);
    subject.done(&client, client.vm_create(&spec).await).await?;
    let name = &spec.name;
    refused(client.vm_resize(name, to(Bytes(max.0 + (2 << 20)))).await, ProblemType::Invalid)?;
    refused(client.vm_resize(name, to(Bytes(0))).await, ProblemType::Invalid)?;
    refused(client.vm_resize(name, ResizeRequest::default()).await, ProblemType::Invalid)?;
    let vm = client.vm_show(name).await.map_err(told)?;
    ensure(vm.memory.size == spec.memory, || format!("{:?}", vm.memory))?;
    subject.gone(&client, name).await
}

pub(super) async fn bounds_are_set_and_ended(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let spec = subject.spec("conf-elastic")?;
    let (name, max) = (&spec.name, spec.memory_max.unwrap_or(spec.memory));
    subject.done(&client, client.vm_create(&spec).await).await?;
    let bounds = ElasticBounds { min: spec.memory, max };
    let over = ElasticBounds { min: spec.memory, max: Bytes(max.0 + 4096) };
    refused(client.vm_elastic_set(name, Some(over)).await, ProblemType::Invalid)?;
    let backwards = ElasticBounds { min: max, max: spec.memory };
    refused(client.vm_elastic_set(name, Some(backwards)).await, ProblemType::Invalid)?;
    subject.done(&client, client.vm_elastic_set(name, Some(bounds)).await).await?;
    let shown = client.vm_elastic_show(name).await.map_err(told)?;
    ensure(shown.as_ref().is_some_and(|shown| shown.bounds == bounds), || format!("{shown:?}"))?;
    subject.done(&client, client.vm_elastic_set(name, None).await).await?;
    let shown = client.vm_elastic_show(name).await.map_err(told)?;
    ensure(shown.is_none(), || format!("still {shown:?}"))?;
    subject.gone(&client, name).await
}
