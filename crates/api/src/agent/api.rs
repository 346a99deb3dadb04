//! What an agent does.

use std::future::Future;

use futures_util::stream::BoxStream;

use super::{
    Access, Attachment, AttachmentSet, AttachmentView, Console, DomainAttach, ElasticBounds, ElasticView,
    HostView, LogQuery, ResizePlan, ResizeRequest, SharedView, StopRequest, VmSpec, VmView, WatchQuery,
};
use crate::change::Change;
use crate::event::{Event, EventId};
use crate::name::{AttachmentId, GroupName, VmName};
use crate::operation::{Operation, OperationFilter, OperationId, WaitQuery};
use crate::problem::Problem;

/// An SDM agent (S7).
///
/// What changes something takes a [`Change`], judges its key and its generation in one transaction with the record of
/// the operation, and answers that operation without waiting for the work. What is refused at once (a wrong state, a
/// name that exists, too much memory) leaves no operation behind; what fails later is told by the operation.
///
/// One machine is changed by one operation at a time; a second one is refused as busy, except that a delete cancels
/// what is running.
pub trait AgentApi: Send + Sync + 'static {
    /// The brick in numbers, and the generation in force.
    fn host(&self) -> impl Future<Output = Result<HostView, Problem>> + Send;

    /// All machines, by name.
    fn vm_list(&self) -> impl Future<Output = Result<Vec<VmView>, Problem>> + Send;

    /// One machine.
    fn vm_show(&self, name: VmName) -> impl Future<Output = Result<VmView, Problem>> + Send;

    /// Makes a machine, and starts it unless told otherwise.
    fn vm_create(
        &self,
        change: Change,
        spec: VmSpec,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Deletes a machine in whatever state it is, and gives back all that it had.
    fn vm_delete(
        &self,
        change: Change,
        name: VmName,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Starts a stopped machine.
    fn vm_start(
        &self,
        change: Change,
        name: VmName,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Stops a machine: asks the guest, or turns it off.
    fn vm_stop(
        &self,
        change: Change,
        name: VmName,
        how: StopRequest,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Pauses a running machine.
    fn vm_pause(
        &self,
        change: Change,
        name: VmName,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Lets a paused machine go on.
    fn vm_resume(
        &self,
        change: Change,
        name: VmName,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// What a resize would do. Changes nothing.
    fn vm_resize_plan(
        &self,
        name: VmName,
        request: ResizeRequest,
    ) -> impl Future<Output = Result<ResizePlan, Problem>> + Send;

    /// Changes a machine's memory, or its local limit, while it runs.
    fn vm_resize(
        &self,
        change: Change,
        name: VmName,
        request: ResizeRequest,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// How a machine follows its guest's need, with what was decided; `None` when it does not.
    fn vm_elastic_show(
        &self,
        name: VmName,
    ) -> impl Future<Output = Result<Option<ElasticView>, Problem>> + Send;

    /// Lets a machine follow its guest's need between bounds, or no longer.
    fn vm_elastic_set(
        &self,
        change: Change,
        name: VmName,
        bounds: Option<ElasticBounds>,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Opens a machine's console.
    fn vm_console(&self, name: VmName) -> impl Future<Output = Result<Console, Problem>> + Send;

    /// The end of a machine's log.
    fn vm_log(&self, name: VmName, query: LogQuery) -> impl Future<Output = Result<Vec<u8>, Problem>> + Send;

    /// Each access to one page of a guest, until the stream is dropped.
    fn vm_watch(
        &self,
        name: VmName,
        query: WatchQuery,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<Access, Problem>>, Problem>> + Send;

    /// Gives far memory to a domain that somebody else started; `domain` is libvirt's name or a process id.
    fn domain_attach(
        &self,
        change: Change,
        domain: String,
        request: DomainAttach,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Brings all memory of such a domain home and leaves it as it was found; `name` is its name in the agent's list.
    fn domain_detach(
        &self,
        change: Change,
        name: VmName,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// All physical attachments, by address.
    fn attachment_list(&self) -> impl Future<Output = Result<Vec<AttachmentView>, Problem>> + Send;

    /// One physical attachment.
    fn attachment_show(
        &self,
        id: AttachmentId,
    ) -> impl Future<Output = Result<AttachmentView, Problem>> + Send;

    /// Memory that several bricks share, with what opens it.
    fn shared_show(&self, group: GroupName) -> impl Future<Output = Result<SharedView, Problem>> + Send;

    /// Makes a physical attachment: an entry of the RMC table. The same entry again is no mistake.
    fn attachment_create(
        &self,
        change: Change,
        entry: Attachment,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Removes a physical attachment that belongs to no machine.
    fn attachment_delete(
        &self,
        change: Change,
        id: AttachmentId,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Logical attach of several at once: a machine has exactly these physical attachments from now on. What those hold that it has
    /// no more goes elsewhere first.
    fn vm_attachments_set(
        &self,
        change: Change,
        name: VmName,
        set: AttachmentSet,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Logical attach: gives a physical attachment to a machine.
    fn vm_attachment_add(
        &self,
        change: Change,
        name: VmName,
        id: AttachmentId,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Takes a physical attachment from a machine; what it held comes home or goes elsewhere first.
    fn vm_attachment_remove(
        &self,
        change: Change,
        name: VmName,
        id: AttachmentId,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Operations, newest first.
    fn operation_list(
        &self,
        filter: OperationFilter,
    ) -> impl Future<Output = Result<Vec<Operation>, Problem>> + Send;

    /// One operation.
    fn operation_show(&self, id: OperationId) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// The operation when it has ended, or as it is when the time is over.
    fn operation_wait(
        &self,
        id: OperationId,
        query: WaitQuery,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Asks a running operation to stop and to undo what it did; one that has ended stays as it is.
    fn operation_cancel(
        &self,
        change: Change,
        id: OperationId,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// What happens from now on, or from behind event `after`, until the stream is dropped. Starts with an event of kind
    /// [`crate::event::MISSED`] where some behind `after` are no longer known.
    fn events(
        &self,
        after: Option<EventId>,
    ) -> impl Future<Output = Result<BoxStream<'static, Event>, Problem>> + Send;

    /// Metrics in the text format of Prometheus.
    fn metrics(&self) -> impl Future<Output = Result<String, Problem>> + Send;
}
