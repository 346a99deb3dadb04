//! The API of the SDM controller: interfaces S9 (registration) and S10 (reservation) of D4.1, prefix `/v1`.
//!
//! [`ControllerApi`] is what a controller does. Amounts of memory are whole numbers of bytes, times are milliseconds since
//! 1970. Everything that changes something is an [`Operation`] (`202 Accepted`): it is kept before it is answered and goes on
//! whatever becomes of the request or of the controller. Only a preview and a question answer at once.
//!
//! Who asks is an administrator, or a member of one project ([`Who`]): members reserve for their project and see what is
//! theirs; registering is the administrators' business, and that of bricks that come with a join token.
//!
//! [`Operation`]: crate::operation::Operation

mod access;
mod api;
mod brick;
mod client;
mod machine;
mod reservation;
mod routes;
mod topology;

pub use access::{Role, TokenEnd, TokenEntry, Tokens, Who};
pub use api::ControllerApi;
pub use brick::{BrickKind, BrickNew, BrickView, CableNew, DrainRequest, PowerState, RackFile};
pub use client::ControllerClient;
pub use machine::{MachineNew, MachineResize, MachineState, MachineView};
pub use reservation::{
    AcceleratorNew, AcceleratorView, GroupNew, MappingView, PlanView, ReasonView, ReservationNew,
    ReservationResize, ReservationView, SegmentView,
};
pub use routes::{document, metrics_router, openapi, router};
pub use topology::{CableView, CircuitView, ControllerView, SwitchView, Topology, TrayView};

/// Kinds of operations.
pub mod kind {
    /// Racks, trays, bricks, switches and cables of a rack file are registered.
    pub const RACK_REGISTER: &str = "rack.register";
    /// A brick is registered.
    pub const BRICK_REGISTER: &str = "brick.register";
    /// What lies on a brick moves elsewhere, and it takes nothing new.
    pub const BRICK_DRAIN: &str = "brick.drain";
    /// A brick is removed.
    pub const BRICK_REMOVE: &str = "brick.remove";
    /// What a brick or switch lost is set again.
    pub const RACK_REPAIR: &str = "rack.repair";
    /// Memory is reserved.
    pub const RESERVATION_CREATE: &str = "reservation.create";
    /// A reservation is carried out.
    pub const RESERVATION_APPLY: &str = "reservation.apply";
    /// A reservation gets more or less memory.
    pub const RESERVATION_RESIZE: &str = "reservation.resize";
    /// A reservation ends.
    pub const RESERVATION_RELEASE: &str = "reservation.release";
    /// A virtual machine is made.
    pub const VM_CREATE: &str = "vm.create";
    /// A virtual machine is started.
    pub const VM_START: &str = "vm.start";
    /// A virtual machine is stopped.
    pub const VM_STOP: &str = "vm.stop";
    /// A virtual machine is paused.
    pub const VM_PAUSE: &str = "vm.pause";
    /// A virtual machine goes on.
    pub const VM_RESUME: &str = "vm.resume";
    /// A virtual machine gets more or less memory.
    pub const VM_RESIZE: &str = "vm.resize";
    /// What is reserved for a virtual machine is made to fit its guest.
    pub const VM_FIT: &str = "vm.fit";
    /// A virtual machine begins to follow its guest's need, or ends to.
    pub const VM_ELASTIC: &str = "vm.elastic";
    /// A virtual machine is deleted.
    pub const VM_DELETE: &str = "vm.delete";
}
