//! The client of memory servers: one target's far memory.
//!
//! [`FarMemory`] reserves segments in extents, spread over the servers, and keeps the RMC table that maps a slot of the
//! target's far space to a page of a segment. [`Port`]s move pages: each owns one connection to every server, belongs
//! to one thread, never blocks except in [`Port::wait`], and keeps many requests in flight.
//!
//! What a user of this crate can rely on: a page comes back as it was stored last, or with an error; never as zeros
//! and never damaged. What it must do itself: give each slot rising versions for as long as the far memory lives (a
//! server refuses the others), compare the version that comes back with the one it stored, discard and reuse a slot
//! through one and the same port, because two ports are not ordered with each other, and give the discard a version below
//! all that the slot gets afterwards, because a port's connections from before and after a cut are not ordered either.
//!
//! This crate decides nothing about pages: which leave, when, or where they go is the pager's business.

mod answers;
mod config;
mod dial;
mod error;
mod event;
mod flights;
mod given;
mod in_place;
mod lend;
mod link;
mod memory;
mod port;
mod reconnect;
mod resume;
pub mod rmc;
mod segments;
mod server;
mod session;
mod shared;
pub mod slots;
mod stream;

pub use config::{Credentials, EXTENT_PAGES, FarConfig, GivenSegment, LEASE, LOST_AFTER, TlsFiles};
pub use error::FarError;
pub use event::{Event, PageError, ReadRequest, ServerState, ServerStatus, WriteRequest};
pub use lend::Lending;
pub use memory::FarMemory;
pub use port::Port;
pub use resume::ExtentRecord;
pub use rmc::{NetPort, Place, Rmc, RmcError};
pub use segments::{PoolView, SegmentView, Segments};
pub use shared::SharedMemory;
pub use slots::SlotTable;
