//! Agents: the machines that they run for the controller.

use rackmem_api::agent::{AgentClient, Origin, ResizeRequest, VmSpec, VmState, VmView};
use rackmem_api::operation::WaitQuery;
use rackmem_api::problem::ProblemType;
use rackmem_api::{ApiError, AttachmentId, Operation, OperationId, OperationState, Problem, VmName};
use rackmem_rack::{Name, SegmentId};
use rackmem_types::Bytes;

use super::address::management;
use super::agents::{Agents, ended, told};
use super::{no_address, segment_of};
use crate::compute::{Call, Errand, Told};

/// Seconds of one wait; an operation that takes longer is waited for again, as long as the agent answers.
const WAIT_S: u32 = 60;

impl Agents {
    /// Does an errand.
    pub(super) async fn errand(&self, call: &Call) -> Result<Told, Problem> {
        let brick = call.errand.brick();
        let address = call.address.as_deref().ok_or_else(|| no_address(brick))?;
        let client = self.client(brick, management(address))?.under(call.reign);
        on_machine(&client, &call.errand).await
    }

    /// The machines of an agent.
    pub(super) async fn machines(&self, brick: &Name, address: &str) -> Result<Vec<VmView>, Problem> {
        self.client(brick, management(address))?.vm_list().await.map_err(told)
    }
}

async fn on_machine(client: &AgentClient, errand: &Errand) -> Result<Told, Problem> {
    let brick = errand.brick();
    match errand {
        Errand::Create { spec, .. } => create(client, brick, spec).await,
        Errand::Delete { spec, .. } => delete(client, spec).await,
        Errand::Start { vm, .. } => start(client, brick, vm).await,
        Errand::Stop { vm, how, .. } => match idle(client, vm).await? {
            Some(view) if runs(&view) => outcome(client, client.vm_stop(vm, *how).await).await,
            _ => Ok(Told::default()),
        },
        Errand::Pause { vm, .. } => match present(client, brick, vm).await?.state {
            VmState::Paused => Ok(Told::default()),
            _ => outcome(client, client.vm_pause(vm).await).await,
        },
        Errand::Resume { vm, .. } => match present(client, brick, vm).await?.state {
            VmState::Running | VmState::Waiting => Ok(Told::default()),
            _ => outcome(client, client.vm_resume(vm).await).await,
        },
        Errand::Elastic { vm, to, .. } => {
            let follows = present(client, brick, vm).await?.elastic.map(|elastic| elastic.bounds);
            if follows == *to {
                return Ok(Told::default());
            }
            outcome(client, client.vm_elastic_set(vm, *to).await).await
        }
        Errand::Attach { vm, attachments, .. } => attach(client, brick, vm, attachments).await,
        Errand::Detach { vm, attachments, .. } => detach(client, vm, attachments).await,
        Errand::Resize { vm, to, .. } => resize(client, brick, vm, *to).await,
        Errand::Restore { vm, to, .. } => restore(client, vm, *to).await,
        Errand::Back { of } => match Box::pin(on_machine(client, of)).await {
            Err(problem) if !is_passing(&problem) => {
                tracing::warn!(%problem, "a machine does not go back to what it was: {of}");
                Ok(Told::default())
            }
            done => done,
        },
    }
}

async fn create(client: &AgentClient, brick: &Name, spec: &VmSpec) -> Result<Told, Problem> {
    match idle(client, &spec.name).await? {
        None => outcome(client, client.vm_create(spec).await).await,
        Some(view) if is_same(&view, spec) => Ok(Told::default()),
        Some(_) => {
            let detail = format!(
                "{brick} has a machine '{}' already that was not made through the controller: choose another name",
                spec.name
            );
            Err(Problem::new(ProblemType::Exists, detail))
        }
    }
}

async fn delete(client: &AgentClient, spec: &VmSpec) -> Result<Told, Problem> {
    // An agent's delete cancels what is under way, so that is not waited for.
    match found(client, &spec.name).await? {
        Some(view) if is_ours(&view, spec) => {
            let deleted = ended(client, client.vm_delete(&spec.name).await).await;
            deleted.or_else(absent_is_fine).map(|()| Told::default())
        }
        Some(_) => {
            tracing::warn!(vm = %spec.name, "a machine of that name which is not the controller's stays");
            Ok(Told::default())
        }
        None => Ok(Told::default()),
    }
}

async fn start(client: &AgentClient, brick: &Name, vm: &VmName) -> Result<Told, Problem> {
    let view = present(client, brick, vm).await?;
    if runs(&view) {
        return Ok(Told::default());
    }
    outcome(client, client.vm_start(vm).await).await
}

async fn attach(
    client: &AgentClient,
    brick: &Name,
    vm: &VmName,
    attachments: &[AttachmentId],
) -> Result<Told, Problem> {
    let view = present(client, brick, vm).await?;
    for id in attachments.iter().filter(|id| !view.attachments.contains(id)) {
        outcome(client, client.vm_attachment_add(vm, id).await).await?;
    }
    Ok(Told::default())
}

async fn detach(client: &AgentClient, vm: &VmName, attachments: &[AttachmentId]) -> Result<Told, Problem> {
    let Some(view) = idle(client, vm).await? else { return Ok(Told::default()) };
    for id in attachments.iter().filter(|id| view.attachments.contains(id)) {
        outcome(client, client.vm_attachment_remove(vm, id).await).await?;
    }
    Ok(Told::default())
}

async fn resize(client: &AgentClient, brick: &Name, vm: &VmName, to: Bytes) -> Result<Told, Problem> {
    present(client, brick, vm).await?;
    let request = ResizeRequest { memory: Some(to), ..ResizeRequest::default() };
    let done = outcome(client, client.vm_resize(vm, request).await).await?;
    let view = present(client, brick, vm).await?;
    Ok(Told { size: Some(view.memory.size), ..done })
}

/// As far as the guest goes along: the way back must not hang on it.
async fn restore(client: &AgentClient, vm: &VmName, to: Bytes) -> Result<Told, Problem> {
    match idle(client, vm).await? {
        Some(view) if runs(&view) && view.memory.target != to => {
            let request = ResizeRequest { memory: Some(to), ..ResizeRequest::default() };
            match outcome(client, client.vm_resize(vm, request).await).await {
                Err(problem) if !is_passing(&problem) => {
                    tracing::warn!(%vm, %problem, "a machine keeps the size that it was to get");
                    Ok(Told::default())
                }
                done => done,
            }
        }
        _ => Ok(Told::default()),
    }
}

/// The machine as its agent has it.
async fn found(client: &AgentClient, vm: &VmName) -> Result<Option<VmView>, Problem> {
    match client.vm_show(vm).await {
        Ok(view) => Ok(Some(view)),
        Err(ApiError::Problem(problem)) if problem.kind == ProblemType::NotFound => Ok(None),
        Err(error) => Err(told(error)),
    }
}

/// The machine when nothing is changing it: a predecessor of this errand may still be under way.
pub(super) async fn idle(client: &AgentClient, vm: &VmName) -> Result<Option<VmView>, Problem> {
    loop {
        let Some(view) = found(client, vm).await? else { return Ok(None) };
        let Some(operation) = view.operation else { return Ok(Some(view)) };
        await_end(client, operation).await?;
    }
}

async fn present(client: &AgentClient, brick: &Name, vm: &VmName) -> Result<VmView, Problem> {
    idle(client, vm).await?.ok_or_else(|| {
        let detail = format!("{brick} does not have the machine '{vm}' any more: delete it here, too");
        Problem::new(ProblemType::NotFound, detail)
    })
}

async fn await_end(client: &AgentClient, id: OperationId) -> Result<Operation, Problem> {
    loop {
        let operation = client.operation_wait(id, WaitQuery { timeout: WAIT_S }).await.map_err(told)?;
        if operation.state.is_final() {
            return Ok(operation);
        }
    }
}

/// What came of something that an agent accepted.
async fn outcome(client: &AgentClient, accepted: Result<Operation, ApiError>) -> Result<Told, Problem> {
    let operation = await_end(client, accepted.map_err(told)?.id).await?;
    match operation.state {
        OperationState::Done => Ok(Told { size: None, note: operation.note }),
        _ => Err(match operation.error {
            // The agent has waited as long as it was told to: that is its answer, and does not pass.
            Some(late) if late.kind == ProblemType::Timeout => {
                Problem::new(ProblemType::Backend, late.detail)
            }
            Some(error) => error,
            None => {
                let (kind, target) = (operation.kind, operation.target);
                Problem::new(ProblemType::Backend, format!("the agent's {kind} of '{target}' was cancelled"))
            }
        }),
    }
}

fn runs(view: &VmView) -> bool {
    matches!(view.state, VmState::Running | VmState::Paused | VmState::Waiting)
}

/// Whether it is the controller's machine: what never changes is as it was asked for, and its far memory is of the same reservation,
/// whose number no other has.
fn is_ours(view: &VmView, spec: &VmSpec) -> bool {
    let reservation = |ids: &[AttachmentId]| ids.iter().find_map(segment_of).map(SegmentId::reservation);
    view.origin == Origin::Created
        && view.vcpus == spec.vcpus
        && view.boot.as_ref() == Some(&spec.boot)
        && reservation(&view.attachments) == reservation(&spec.attachments)
}

/// Whether it is as it was made.
fn is_same(view: &VmView, spec: &VmSpec) -> bool {
    let has = |id: &AttachmentId| view.attachments.contains(id);
    is_ours(view, spec)
        && view.attachments.len() == spec.attachments.len()
        && spec.attachments.iter().all(has)
        && view.memory.local_limit == spec.local
}

fn absent_is_fine(problem: Problem) -> Result<(), Problem> {
    if problem.kind == ProblemType::NotFound { Ok(()) } else { Err(problem) }
}

fn is_passing(problem: &Problem) -> bool {
    matches!(problem.kind, ProblemType::Unavailable | ProblemType::Busy | ProblemType::Timeout)
}
