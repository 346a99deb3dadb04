//! Agents: the machines that they run for the controller.

use std::pin::pin;

use rackmem_api::agent::{AgentClient, Origin, ResizeRequest, VmSpec, VmState, VmView};
use rackmem_api::operation::WaitQuery;
use rackmem_api::problem::ProblemType;
use rackmem_api::{ApiError, AttachmentId, Operation, OperationId, OperationState, Problem, VmName};
use rackmem_rack::{Name, SegmentId};
use rackmem_types::Bytes;
use tokio_util::sync::CancellationToken;

use super::address::management;
use super::agents::{Agents, ended, told};
use super::{no_address, segment_of};
use crate::compute::{Call, Errand, Told};
use crate::overtaken::is_overtaken;

/// Seconds of one wait; an operation that takes longer is waited for again, as long as the agent answers.
const WAIT_S: u32 = 60;

/// An agent that is asked for something, for as long as somebody wants it.
pub(super) struct Asked {
    client: AgentClient,
    cancel: CancellationToken,
    /// The kind of the agent's operation, if that can be cancelled.
    waits_as: Option<&'static str>,
}

impl Asked {
    /// An agent that is asked for what is carried through.
    pub(super) fn surely(client: AgentClient) -> Self {
        Self { client, cancel: CancellationToken::new(), waits_as: None }
    }
}

impl std::ops::Deref for Asked {
    type Target = AgentClient;

    fn deref(&self) -> &AgentClient {
        &self.client
    }
}

impl Agents {
    /// Does an errand.
    pub(super) async fn errand(&self, call: &Call) -> Result<Told, Problem> {
        let brick = call.errand.brick();
        let address = call.address.as_deref().ok_or_else(|| no_address(brick))?;
        let client = self.client(brick, management(address))?.under(call.reign);
        let agent = Asked { client, cancel: call.cancel.clone(), waits_as: call.errand.waits_as() };
        on_machine(&agent, &call.errand).await
    }

    /// The machines of an agent.
    pub(super) async fn machines(&self, brick: &Name, address: &str) -> Result<Vec<VmView>, Problem> {
        self.client(brick, management(address))?.vm_list().await.map_err(told)
    }
}

async fn on_machine(agent: &Asked, errand: &Errand) -> Result<Told, Problem> {
    let brick = errand.brick();
    match errand {
        Errand::Create { spec, .. } => create(agent, brick, spec).await,
        Errand::Delete { spec, .. } => delete(agent, spec).await,
        Errand::Start { vm, .. } => start(agent, brick, vm).await,
        Errand::Stop { vm, how, .. } => match idle(agent, vm).await? {
            Some(view) if runs(&view) => outcome(agent, agent.vm_stop(vm, *how).await).await,
            _ => Ok(Told::default()),
        },
        Errand::Pause { vm, .. } => match present(agent, brick, vm).await?.state {
            VmState::Paused => Ok(Told::default()),
            _ => outcome(agent, agent.vm_pause(vm).await).await,
        },
        Errand::Resume { vm, .. } => match present(agent, brick, vm).await?.state {
            VmState::Running | VmState::Waiting => Ok(Told::default()),
            _ => outcome(agent, agent.vm_resume(vm).await).await,
        },
        Errand::Elastic { vm, to, .. } => {
            let follows = present(agent, brick, vm).await?.elastic.map(|elastic| elastic.bounds);
            if follows == *to {
                return Ok(Told::default());
            }
            outcome(agent, agent.vm_elastic_set(vm, *to).await).await
        }
        Errand::Attach { vm, attachments, .. } => attach(agent, brick, vm, attachments).await,
        Errand::Detach { vm, attachments, .. } => detach(agent, vm, attachments).await,
        Errand::Resize { vm, to, .. } => resize(agent, brick, vm, *to).await,
        Errand::Restore { vm, to, .. } => restore(agent, vm, *to).await,
        Errand::Back { of } => match Box::pin(on_machine(agent, of)).await {
            Err(problem) if is_an_answer(&problem) => {
                tracing::warn!(%problem, "a machine does not go back to what it was: {of}");
                Ok(Told::default())
            }
            done => done,
        },
    }
}

async fn create(agent: &Asked, brick: &Name, spec: &VmSpec) -> Result<Told, Problem> {
    match idle(agent, &spec.name).await? {
        None => outcome(agent, agent.vm_create(spec).await).await,
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

async fn delete(agent: &Asked, spec: &VmSpec) -> Result<Told, Problem> {
    // An agent's delete cancels what is under way, so that is not waited for.
    match found(agent, &spec.name).await? {
        Some(view) if is_ours(&view, spec) => {
            let deleted = ended(agent, agent.vm_delete(&spec.name).await).await;
            deleted.or_else(absent_is_fine).map(|()| Told::default())
        }
        Some(_) => {
            tracing::warn!(vm = %spec.name, "a machine of that name which is not the controller's stays");
            Ok(Told::default())
        }
        None => Ok(Told::default()),
    }
}

async fn start(agent: &Asked, brick: &Name, vm: &VmName) -> Result<Told, Problem> {
    let view = present(agent, brick, vm).await?;
    if runs(&view) {
        return Ok(Told::default());
    }
    outcome(agent, agent.vm_start(vm).await).await
}

async fn attach(
    agent: &Asked,
    brick: &Name,
    vm: &VmName,
    attachments: &[AttachmentId],
) -> Result<Told, Problem> {
    let view = present(agent, brick, vm).await?;
    for id in attachments.iter().filter(|id| !view.attachments.contains(id)) {
        outcome(agent, agent.vm_attachment_add(vm, id).await).await?;
    }
    Ok(Told::default())
}

async fn detach(agent: &Asked, vm: &VmName, attachments: &[AttachmentId]) -> Result<Told, Problem> {
    let Some(view) = idle(agent, vm).await? else { return Ok(Told::default()) };
    for id in attachments.iter().filter(|id| view.attachments.contains(id)) {
        outcome(agent, agent.vm_attachment_remove(vm, id).await).await?;
    }
    Ok(Told::default())
}

async fn resize(agent: &Asked, brick: &Name, vm: &VmName, to: Bytes) -> Result<Told, Problem> {
    present(agent, brick, vm).await?;
    let request = ResizeRequest { memory: Some(to), ..ResizeRequest::default() };
    let done = outcome(agent, agent.vm_resize(vm, request).await).await?;
    let view = present(agent, brick, vm).await?;
    Ok(Told { size: Some(view.memory.size), ..done })
}

/// As far as the guest goes along: the way back must not hang on it.
async fn restore(agent: &Asked, vm: &VmName, to: Bytes) -> Result<Told, Problem> {
    match idle(agent, vm).await? {
        Some(view) if runs(&view) && view.memory.target != to => {
            let request = ResizeRequest { memory: Some(to), ..ResizeRequest::default() };
            match outcome(agent, agent.vm_resize(vm, request).await).await {
                Err(problem) if is_an_answer(&problem) => {
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
async fn found(agent: &Asked, vm: &VmName) -> Result<Option<VmView>, Problem> {
    match agent.vm_show(vm).await {
        Ok(view) => Ok(Some(view)),
        Err(ApiError::Problem(problem)) if problem.kind == ProblemType::NotFound => Ok(None),
        Err(error) => Err(told(error)),
    }
}

/// The machine when nothing is changing it: a predecessor of this errand may still be under way.
pub(super) async fn idle(agent: &Asked, vm: &VmName) -> Result<Option<VmView>, Problem> {
    loop {
        let view = found(agent, vm).await?;
        let Some(operation) = view.as_ref().and_then(|view| view.operation) else {
            return if agent.cancel.is_cancelled() { Err(given_up()) } else { Ok(view) };
        };
        let kind = agent.operation_show(operation).await.map_err(told)?.kind;
        if agent.waits_as == Some(kind.as_str()) {
            await_end(agent, operation).await?;
            continue;
        }
        // What somebody else does is not cancelled.
        tokio::select! {
            ended = end_of(agent, operation) => drop(ended?),
            () = agent.cancel.cancelled() => return Err(given_up()),
        }
    }
}

fn given_up() -> Problem {
    Problem::new(ProblemType::Cancelled, "it was given up before the agent was asked for it")
}

async fn present(agent: &Asked, brick: &Name, vm: &VmName) -> Result<VmView, Problem> {
    idle(agent, vm).await?.ok_or_else(|| {
        let detail = format!("{brick} does not have the machine '{vm}' any more: delete it here, too");
        Problem::new(ProblemType::NotFound, detail)
    })
}

/// The end of what this errand asked for; it is cancelled when the errand is.
async fn await_end(agent: &Asked, id: OperationId) -> Result<Operation, Problem> {
    let mut end = pin!(end_of(agent, id));
    tokio::select! {
        ended = &mut end => return ended,
        () = agent.cancel.cancelled() => {}
    }
    if let Err(error) = agent.operation_cancel(id).await.map_err(told) {
        if is_overtaken(&error) {
            return Err(error);
        }
        tracing::warn!(%error, "the agent does not cancel its operation {id}, and its end is waited for");
    }
    end.await
}

async fn end_of(agent: &AgentClient, id: OperationId) -> Result<Operation, Problem> {
    loop {
        let operation = agent.operation_wait(id, WaitQuery { timeout: WAIT_S }).await.map_err(told)?;
        if operation.state.is_final() {
            return Ok(operation);
        }
    }
}

/// What came of something that an agent accepted.
async fn outcome(agent: &Asked, accepted: Result<Operation, ApiError>) -> Result<Told, Problem> {
    let operation = await_end(agent, accepted.map_err(told)?.id).await?;
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

/// Whether the agent has said no: it neither was away for a moment, nor obeys somebody else.
fn is_an_answer(problem: &Problem) -> bool {
    !is_overtaken(problem)
        && !matches!(problem.kind, ProblemType::Unavailable | ProblemType::Busy | ProblemType::Timeout)
}
