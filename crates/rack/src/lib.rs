//! The rack as one pool: what there is, who has it, and where the next request goes.
//!
//! [`Rack`] is an in-memory undirected multigraph of bricks, switches, cables and circuits (D4.1, §3.1) together with the
//! reservations on it. It changes by [`Event`]s alone. [`planner`] makes [`Plan`]s from it and changes nothing; a plan that the
//! world has overtaken is refused when it is to be accepted. [`file`] reads a rack from a file that people write.
//!
//! This crate is pure: it does no IO, reads no clock, and draws no random numbers; times and numbers are handed in.

mod class;
mod error;
mod extents;
pub mod file;
mod graph;
mod id;
mod index;
mod inventory;
pub mod planner;
mod quota;
mod rack;
mod reservation;

pub use class::LatencyClass;
pub use error::RackError;
pub use extents::Extents;
pub use graph::{
    Brick, BrickSpec, Cable, CableSpec, Circuit, CircuitState, FAR_PAGES_MAX, NETPORTS_MAX, Offer, PORTS_MAX,
    Path, Place, Power, Role, Switch, SwitchKind, SwitchSpec,
};
pub use id::{
    CircuitId, Generation, NAME_LEN_MAX, Name, PARTS_MAX, PortRef, RESERVATION_MAX, ReservationId, SegmentId,
    Timestamp,
};
pub use inventory::{BrickRecord, Difference, Effect, Event, Observation, Snapshot};
pub use planner::{Grant, NetPort, Plan, Purpose, Refusal, Step};
pub use quota::{Quota, Quotas, Usage};
pub use rack::Rack;
pub use reservation::{
    AcceleratorGrant, AcceleratorNeed, GroupNeed, Mapping, Pending, Request, Reservation, SPREAD_DEFAULT,
    Segment, State,
};
