//! Agents: entries of their RMC tables, and machines that have them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rackmem_api::agent::{
    AgentClient, Attachment, AttachmentSet, AttachmentState, AttachmentView, SegmentToken, SharedPlace,
};
use rackmem_api::operation::WaitQuery;
use rackmem_api::problem::ProblemType;
use rackmem_api::serve::TlsFiles;
use rackmem_api::{ApiError, AttachmentId, Operation, OperationState, Problem};
use rackmem_rack::{Name, NetPort, SegmentId};
use rackmem_types::PAGE_SIZE;

use super::address::{self, is_simulated, management};
use super::machines::Asked;
use super::{TableEntry, attachment_of, machines, segment_of};
use crate::deed::Deed;
use crate::order::Order;

/// Seconds an agent may take for one operation; bringing a machine's pages home takes longest.
const OPERATION_MAX_S: u32 = 300;

/// Clients of all agents, each made once. Those over TCP share their settings and connections: ten thousand of them are little memory.
#[derive(Debug)]
pub(super) struct Agents {
    tls: Option<TlsFiles>,
    token: Option<String>,
    clients: Mutex<HashMap<String, AgentClient>>,
}

impl Agents {
    pub(super) fn new(tls: Option<TlsFiles>, token: Option<String>) -> Self {
        Self { tls, token, clients: Mutex::default() }
    }

    /// Makes the entry for a segment. The same entry again is no mistake.
    pub(super) async fn netport_add(
        &self,
        order: &Order,
        brick: &Name,
        server: &Name,
        segment: SegmentId,
        entry: &NetPort,
    ) -> Result<(), Problem> {
        let bytes = |pages: u64| pages.saturating_mul(PAGE_SIZE as u64);
        let address = order.data(server)?;
        // Behind a simulated memory server there is no segment to be opened.
        let (of, token) = match order.deeds.get(&segment) {
            None => (None, None),
            Some(_) if is_simulated(address) => (None, None),
            Some(Deed { owner, place: Some(place), .. }) => (Some(place.id), Some(SegmentToken(*owner))),
            Some(Deed { place: None, .. }) => {
                let detail = format!("segment {segment} was not made yet");
                return Err(Problem::new(ProblemType::Internal, detail));
            }
        };
        let server = address::server(address).map_err(|error| Problem::new(ProblemType::Invalid, error))?;
        let entry = Attachment {
            id: id(segment)?,
            start: bytes(entry.start),
            end: bytes(entry.end),
            port: entry.port.into(),
            offset: entry.offset.saturating_mul(PAGE_SIZE as i64),
            server,
            segment: of.map(rackmem_api::agent::SegmentId),
            token,
            class: order.class,
            shared: order.shared.as_ref().filter(|_| of.is_some()).map(shared).transpose()?,
        };
        let client = self.of(order, brick)?;
        ended(&client, client.attachment_create(&entry).await).await
    }

    /// Removes the entry for a segment; one that is not there is no mistake.
    pub(super) async fn netport_remove(
        &self,
        order: &Order,
        brick: &Name,
        segment: SegmentId,
    ) -> Result<(), Problem> {
        let client = self.of(order, brick)?;
        let removed = ended(&client, client.attachment_delete(&id(segment)?).await).await;
        removed.or_else(absent_is_fine)
    }

    /// Sees that the entries are there, for machines that are to get them.
    pub(super) async fn present(
        &self,
        order: &Order,
        brick: &Name,
        segments: &[SegmentId],
    ) -> Result<(), Problem> {
        let client = self.of(order, brick)?;
        for segment in segments {
            client.attachment_show(&id(*segment)?).await.map_err(told)?;
        }
        Ok(())
    }

    /// Takes the entries from the machines that have them: their pages come home.
    pub(super) async fn take_back(
        &self,
        order: &Order,
        brick: &Name,
        segments: &[SegmentId],
    ) -> Result<(), Problem> {
        let client = self.of(order, brick)?;
        for segment in segments {
            let id = id(*segment)?;
            let view = match client.attachment_show(&id).await {
                Ok(view) => view,
                Err(ApiError::Problem(problem)) if problem.kind == ProblemType::NotFound => continue,
                Err(error) => return Err(told(error)),
            };
            if let Some(vm) = view.vm {
                ended(&client, client.vm_attachment_remove(&vm, &id).await).await?;
            }
        }
        Ok(())
    }

    /// Gives the machines that have the entries `from` the entries `to` instead: their pages go there while they run. What no
    /// machine has holds no pages. Whatever comes of it, an agent leaves a machine with all of the one or all of the other.
    pub(super) async fn migrate(
        &self,
        order: &Order,
        brick: &Name,
        from: &[SegmentId],
        to: &[SegmentId],
    ) -> Result<(), Problem> {
        let client = self.of(order, brick)?;
        let ids = |segments: &[SegmentId]| segments.iter().map(|one| id(*one)).collect::<Result<Vec<_>, _>>();
        let (from, to) = (ids(from)?, ids(to)?);
        // All of them are of one reservation, and so of one machine.
        let mut owner = None;
        for id in &from {
            owner = owner.or(client.attachment_show(id).await.map_err(told)?.vm);
        }
        let Some(vm) = owner else { return Ok(()) };
        // What a predecessor of this step began may still be under way.
        let Some(view) = machines::idle(&Asked::surely(client.clone()), &vm).await? else { return Ok(()) };
        let mut attachments = view.attachments;
        attachments.retain(|id| !from.contains(id) && !to.contains(id));
        attachments.extend(to);
        ended(&client, client.vm_attachments_set(&vm, &AttachmentSet { attachments }).await).await
    }

    /// What an agent's table has of ours.
    pub(super) async fn look(&self, brick: &Name, address: &str) -> Result<Vec<TableEntry>, Problem> {
        let views = self.client(brick, management(address))?.attachment_list().await.map_err(told)?;
        let entry = |view: AttachmentView| {
            let segment = segment_of(&view.entry.id)?;
            let lost = view.state == AttachmentState::Unreachable;
            let unreachable = lost.then(|| view.reason.unwrap_or_default());
            Some(TableEntry { segment, unreachable })
        };
        Ok(views.into_iter().filter_map(entry).collect())
    }

    fn of(&self, order: &Order, brick: &Name) -> Result<AgentClient, Problem> {
        Ok(self.client(brick, order.management(brick)?)?.under(order.reign))
    }

    pub(super) fn client(&self, brick: &Name, address: &str) -> Result<AgentClient, Problem> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(address) {
            return Ok(client.clone());
        }
        let wrong =
            |error: String| Problem::new(ProblemType::Invalid, format!("the agent of '{brick}': {error}"));
        let mut endpoint = address::agent(address).map_err(wrong)?;
        if self.tls.is_some() {
            endpoint = endpoint.with_tls();
        }
        let client = match clients.values().find_map(|other| other.at(endpoint.clone())) {
            Some(client) => client,
            None => AgentClient::new(endpoint, self.tls.as_ref(), self.token.as_deref())
                .map_err(|error| wrong(error.to_string()))?,
        };
        clients.insert(address.to_owned(), client.clone());
        Ok(client)
    }
}

/// Where a segment lies in shared memory, as agents are told.
fn shared((group, page): &(Name, u64)) -> Result<SharedPlace, Problem> {
    let group = group.to_string().parse();
    let group = group
        .map_err(|error: rackmem_api::NameError| Problem::new(ProblemType::Internal, error.to_string()))?;
    Ok(SharedPlace { group, at: page.saturating_mul(PAGE_SIZE as u64) })
}

fn id(segment: SegmentId) -> Result<AttachmentId, Problem> {
    let name = attachment_of(segment).parse();
    name.map_err(|error: rackmem_api::NameError| Problem::new(ProblemType::Internal, error.to_string()))
}

/// Waits until what an agent accepted has ended well.
pub(super) async fn ended(
    client: &AgentClient,
    accepted: Result<Operation, ApiError>,
) -> Result<(), Problem> {
    let mut operation = accepted.map_err(told)?;
    if !operation.state.is_final() {
        let query = WaitQuery { timeout: OPERATION_MAX_S };
        operation = client.operation_wait(operation.id, query).await.map_err(told)?;
    }
    match operation.state {
        OperationState::Done => Ok(()),
        OperationState::Running => Err(Problem::new(
            ProblemType::Timeout,
            format!("the agent is still at '{}' of '{}'", operation.kind, operation.target),
        )),
        OperationState::Failed | OperationState::Cancelled => Err(operation.error.unwrap_or_else(|| {
            let detail = format!("the agent's {} of '{}' was cancelled", operation.kind, operation.target);
            Problem::new(ProblemType::Backend, detail)
        })),
    }
}

fn absent_is_fine(problem: Problem) -> Result<(), Problem> {
    if problem.kind == ProblemType::NotFound { Ok(()) } else { Err(problem) }
}

/// An error of asking an agent as a problem.
pub(crate) fn told(error: ApiError) -> Problem {
    match error {
        ApiError::Problem(problem) => problem,
        ApiError::Unreachable { .. } => {
            Problem::new(ProblemType::Unavailable, error.to_string()).retry_after(1)
        }
        other => Problem::new(ProblemType::Backend, other.to_string()),
    }
}
