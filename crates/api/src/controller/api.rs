//! What a controller does.

use std::future::Future;

use futures_util::stream::BoxStream;

use super::{
    BrickNew, BrickView, ControllerView, DrainRequest, MachineNew, MachineResize, MachineView, PlanView,
    RackFile, ReasonView, ReservationNew, ReservationResize, ReservationView, Topology, Who,
};
use crate::agent::{Access, Console, ElasticBounds, ElasticView, LogQuery, StopRequest, WatchQuery};
use crate::change::Change;
use crate::event::{Event, EventId};
use crate::name::VmName;
use crate::operation::{Operation, OperationFilter, OperationId, WaitQuery};
use crate::problem::Problem;

/// An SDM controller (S9 and S10).
///
/// What changes something is kept as an operation before it is answered. Whether it is possible is found out by the operation,
/// not by the request: a burst of requests is accepted first and decided after. When too many wait, further ones are refused as
/// unavailable, with a time after which to try again.
pub trait ControllerApi: Send + Sync + 'static {
    /// The controller in numbers, and its reign.
    fn controller(&self) -> impl Future<Output = Result<ControllerView, Problem>> + Send;

    /// The graph. Of who uses it, it tells only what `who` may see.
    fn topology(&self, who: Who) -> impl Future<Output = Result<Topology, Problem>> + Send;

    /// All bricks, in the order of their registration.
    fn brick_list(&self) -> impl Future<Output = Result<Vec<BrickView>, Problem>> + Send;

    /// One brick.
    fn brick_show(&self, name: String) -> impl Future<Output = Result<BrickView, Problem>> + Send;

    /// Registers a brick and its cables.
    fn brick_register(
        &self,
        change: Change,
        brick: BrickNew,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Registers all that is in a rack file.
    fn rack_register(
        &self,
        change: Change,
        file: RackFile,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Moves away what lies on a brick; it takes nothing new any more. Or lets it take new things again.
    fn brick_drain(
        &self,
        change: Change,
        name: String,
        request: DrainRequest,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Removes a brick of which nothing is held.
    fn brick_remove(
        &self,
        change: Change,
        name: String,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// The reservations that `who` may see, by number.
    fn reservation_list(
        &self,
        who: Who,
    ) -> impl Future<Output = Result<Vec<ReservationView>, Problem>> + Send;

    /// One reservation.
    fn reservation_show(
        &self,
        who: Who,
        id: u64,
    ) -> impl Future<Output = Result<ReservationView, Problem>> + Send;

    /// What a reservation would do. Changes nothing.
    fn reservation_preview(
        &self,
        who: Who,
        request: ReservationNew,
    ) -> impl Future<Output = Result<PlanView, Problem>> + Send;

    /// Reserves, and carries it out unless told otherwise. The operation's target is the reservation's number.
    fn reservation_create(
        &self,
        change: Change,
        who: Who,
        request: ReservationNew,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Carries out a reservation.
    fn reservation_apply(
        &self,
        change: Change,
        who: Who,
        id: u64,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Gives a reservation more or less memory.
    fn reservation_resize(
        &self,
        change: Change,
        who: Who,
        id: u64,
        request: ReservationResize,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Ends a reservation.
    fn reservation_release(
        &self,
        change: Change,
        who: Who,
        id: u64,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// The virtual machines that `who` may see, by name.
    fn vm_list(&self, who: Who) -> impl Future<Output = Result<Vec<MachineView>, Problem>> + Send;

    /// One virtual machine, with what its agent says of it.
    fn vm_show(&self, who: Who, name: VmName) -> impl Future<Output = Result<MachineView, Problem>> + Send;

    /// Makes a virtual machine: chooses its brick, reserves, attaches, starts; all or nothing.
    fn vm_create(
        &self,
        change: Change,
        who: Who,
        new: MachineNew,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Starts a stopped machine.
    fn vm_start(
        &self,
        change: Change,
        who: Who,
        name: VmName,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Stops a machine; what is reserved for it stays.
    fn vm_stop(
        &self,
        change: Change,
        who: Who,
        name: VmName,
        how: StopRequest,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Pauses a running machine; what is reserved for it stays.
    fn vm_pause(
        &self,
        change: Change,
        who: Who,
        name: VmName,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Lets a paused machine go on.
    fn vm_resume(
        &self,
        change: Change,
        who: Who,
        name: VmName,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Gives a machine more or less memory while it runs, and reserves or releases what that takes or frees.
    fn vm_resize(
        &self,
        change: Change,
        who: Who,
        name: VmName,
        request: MachineResize,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Has what is reserved for a machine fit a guest of that size; the guest itself is not changed.
    fn vm_fit(
        &self,
        change: Change,
        who: Who,
        name: VmName,
        request: MachineResize,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Lets a machine follow its guest's need between bounds, or no longer. What it grows by its agent has reserved.
    fn vm_elastic_set(
        &self,
        change: Change,
        who: Who,
        name: VmName,
        bounds: Option<ElasticBounds>,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// How a machine follows its guest's need, as its agent says; `None` when it does not.
    fn vm_elastic_show(
        &self,
        who: Who,
        name: VmName,
    ) -> impl Future<Output = Result<Option<ElasticView>, Problem>> + Send;

    /// Opens a machine's console, through its agent.
    fn vm_console(&self, who: Who, name: VmName) -> impl Future<Output = Result<Console, Problem>> + Send;

    /// The end of a machine's log, from its agent.
    fn vm_log(
        &self,
        who: Who,
        name: VmName,
        query: LogQuery,
    ) -> impl Future<Output = Result<Vec<u8>, Problem>> + Send;

    /// Each access to one page of a guest, as its agent tells, until the stream is dropped.
    fn vm_watch(
        &self,
        who: Who,
        name: VmName,
        query: WatchQuery,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<Access, Problem>>, Problem>> + Send;

    /// Deletes a machine in whatever state it is, and releases its reservation.
    fn vm_delete(
        &self,
        change: Change,
        who: Who,
        name: VmName,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Brick by brick, what each means for a request.
    fn why(
        &self,
        who: Who,
        request: ReservationNew,
    ) -> impl Future<Output = Result<Vec<ReasonView>, Problem>> + Send;

    /// The operations that `who` may see, newest first.
    fn operation_list(
        &self,
        who: Who,
        filter: OperationFilter,
    ) -> impl Future<Output = Result<Vec<Operation>, Problem>> + Send;

    /// One operation.
    fn operation_show(
        &self,
        who: Who,
        id: OperationId,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// The operation when it has ended, or as it is when the time is over.
    fn operation_wait(
        &self,
        who: Who,
        id: OperationId,
        query: WaitQuery,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Asks a running operation to stop and to undo what it did; one that has ended stays as it is.
    fn operation_cancel(
        &self,
        change: Change,
        who: Who,
        id: OperationId,
    ) -> impl Future<Output = Result<Operation, Problem>> + Send;

    /// Brick by brick, what each means now for the request of an operation.
    fn operation_why(
        &self,
        who: Who,
        id: OperationId,
    ) -> impl Future<Output = Result<Vec<ReasonView>, Problem>> + Send;

    /// What happens that `who` may see, from now on or from behind event `after`, until the stream is dropped.
    fn events(
        &self,
        who: Who,
        after: Option<EventId>,
    ) -> impl Future<Output = Result<BoxStream<'static, Event>, Problem>> + Send;

    /// Metrics in the text format of Prometheus.
    fn metrics(&self) -> impl Future<Output = Result<String, Problem>> + Send;
}
