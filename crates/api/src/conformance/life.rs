//! Machines are made, do what they are told, and leave nothing behind.

use rackmem_types::Bytes;

use super::{Failure, Subject, ensure, refused, told};
use crate::agent::{AgentClient, StopRequest, VmSpec, VmState};
use crate::name::VmName;
use crate::problem::ProblemType;

async fn in_state(client: &AgentClient, name: &VmName, state: VmState) -> Result<(), Failure> {
    let vm = client.vm_show(name).await.map_err(told)?;
    ensure(vm.state == state, || {
        format!("'{name}' is {:?} and should be {state:?} ({:?})", vm.state, vm.reason)
    })
}

pub(super) async fn a_machine_lives(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let before = client.host().await.map_err(told)?;
    let spec = subject.spec("conf-life")?;
    let name = &spec.name;
    subject.done(&client, client.vm_create(&spec).await).await?;
    in_state(&client, name, VmState::Running).await?;
    let vm = client.vm_show(name).await.map_err(told)?;
    ensure(vm.pid.is_some() && vm.accelerator.is_some(), || {
        format!("a running machine has no process: {vm:?}")
    })?;
    ensure(vm.memory.size == spec.memory && vm.memory.local_limit == spec.local, || {
        format!("{:?}", vm.memory)
    })?;
    ensure(vm.operation.is_none(), || "nothing changes it and it says so".to_owned())?;
    let listed = client.vm_list().await.map_err(told)?;
    ensure(listed.iter().any(|vm| vm.name == *name), || "it is not in the list".to_owned())?;
    subject.done(&client, client.vm_pause(name).await).await?;
    in_state(&client, name, VmState::Paused).await?;
    subject.done(&client, client.vm_resume(name).await).await?;
    in_state(&client, name, VmState::Running).await?;
    let force = StopRequest { force: true, timeout_s: None };
    subject.done(&client, client.vm_stop(name, force).await).await?;
    in_state(&client, name, VmState::Stopped).await?;
    ensure(client.vm_show(name).await.map_err(told)?.pid.is_none(), || {
        "it is off and has a process".to_owned()
    })?;
    subject.done(&client, client.vm_start(name).await).await?;
    in_state(&client, name, VmState::Running).await?;
    subject.gone(&client, name).await?;
    let after = client.host().await.map_err(told)?;
    ensure(after.vms == before.vms && after.memory.promised == before.memory.promised, || {
        format!("something is left: {:?} before, {:?} afterwards", before.memory, after.memory)
    })
}

pub(super) async fn a_name_is_taken_once(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let spec = VmSpec { start: false, ..subject.spec("conf-once")? };
    subject.done(&client, client.vm_create(&spec).await).await?;
    in_state(&client, &spec.name, VmState::Stopped).await?;
    refused(client.vm_create(&spec).await, ProblemType::Exists)?;
    subject.gone(&client, &spec.name).await
}

pub(super) async fn what_does_not_fit_the_state_is_refused(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let spec = VmSpec { start: false, ..subject.spec("conf-state")? };
    let name = &spec.name;
    subject.done(&client, client.vm_create(&spec).await).await?;
    refused(client.vm_pause(name).await, ProblemType::WrongState)?;
    refused(client.vm_resume(name).await, ProblemType::WrongState)?;
    refused(client.vm_stop(name, StopRequest::default()).await, ProblemType::WrongState)?;
    subject.done(&client, client.vm_start(name).await).await?;
    refused(client.vm_start(name).await, ProblemType::WrongState)?;
    refused(client.vm_resume(name).await, ProblemType::WrongState)?;
    subject.gone(&client, name).await
}

pub(super) async fn what_is_not_there_is_not_found(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let name = &subject.name("conf-nobody")?;
    refused(client.vm_show(name).await, ProblemType::NotFound)?;
    refused(client.vm_start(name).await, ProblemType::NotFound)?;
    refused(client.vm_delete(name).await, ProblemType::NotFound)?;
    refused(client.vm_elastic_show(name).await, ProblemType::NotFound)?;
    refused(client.domain_detach(name).await, ProblemType::NotFound)?;
    let nobody = "00000000-0000-7000-8000-000000000000".parse().map_err(|error| format!("{error}"))?;
    refused(client.operation_show(nobody).await, ProblemType::NotFound)?;
    refused(client.operation_cancel(nobody).await, ProblemType::NotFound)
}

pub(super) async fn a_delete_takes_over_from_a_create(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let before = client.host().await.map_err(told)?.memory.promised;
    let spec = subject.spec("conf-haste")?;
    let create = client.vm_create(&spec).await.map_err(told)?;
    subject.gone(&client, &spec.name).await?;
    let create = subject.ended(&client, &create).await?;
    ensure(create.state.is_final(), || format!("the create goes on: {create:?}"))?;
    let after = client.host().await.map_err(told)?.memory.promised;
    ensure(after == before, || format!("{after} is promised, before it was {before}"))
}

pub(super) async fn nonsense_is_refused_and_leaves_nothing(subject: &Subject) -> Result<(), Failure> {
    let client = subject.client().await?;
    let good = subject.spec("conf-nonsense")?;
    let pool = client.host().await.map_err(told)?.memory.pool;
    let without_boot = VmSpec { boot: crate::agent::Boot::default(), ..good.clone() };
    refused(client.vm_create(&without_boot).await, ProblemType::Invalid)?;
    let backwards = VmSpec { memory_max: Some(Bytes(good.memory.0 - 4096)), ..good.clone() };
    refused(client.vm_create(&backwards).await, ProblemType::Invalid)?;
    let no_processor = VmSpec { vcpus: 0, ..good.clone() };
    refused(client.vm_create(&no_processor).await, ProblemType::Invalid)?;
    let too_large = Bytes((pool.0 + (1 << 30)) >> 30 << 30);
    let too_large = VmSpec { memory: too_large, memory_max: None, local: None, ..good.clone() };
    refused(client.vm_create(&too_large).await, ProblemType::Capacity)?;
    refused(client.vm_show(&good.name).await, ProblemType::NotFound)
}
