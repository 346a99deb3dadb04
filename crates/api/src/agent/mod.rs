//! The API of the SDM agent: interface S7 of D4.1, prefix `/v1`.
//!
//! [`AgentApi`] is what an agent does; the real agent and the simulated one implement it. Amounts of memory are whole
//! numbers of bytes, times are milliseconds since 1970. Everything that changes something is an [`Operation`]
//! (`202 Accepted`), also what is done at once.
//!
//! [`Operation`]: crate::operation::Operation

mod api;
mod attachment;
mod client;
mod elastic;
mod host;
mod memory;
mod requests;
mod resize;
pub(crate) mod routes;
mod segment;
mod shared;
mod vm;

pub use crate::console::{Console, ConsoleIo};
pub use api::AgentApi;
pub use attachment::{Attachment, AttachmentSet, AttachmentState, AttachmentView, SharedPlace};
pub use client::AgentClient;
pub use elastic::{ElasticBounds, ElasticDecision, ElasticView, GuestMemory};
pub use host::{HostMemory, HostView, NumaNode, Power, PowerSource, Pressure, Stall};
pub use memory::{FarPart, FarState, VmMemory};
pub use requests::{Access, DomainAttach, LogQuery, LogSource, StopRequest, WatchQuery, kind};
pub use resize::{Mechanism, RUNNING_MIN, ResizePlan, ResizeRequest, ResizeStep, StepCost};
pub use routes::{document, fleet, openapi, router};
pub use segment::{SegmentId, SegmentToken};
pub use shared::{SharedPart, SharedView};
pub use vm::{
    Accelerator, AcceleratorKind, Boot, DIMM_MIN, Driver, Growth, MEMORY_MAX, MEMORY_MIN, Origin, PagerState,
    PagerView, VmSpec, VmState, VmView,
};
