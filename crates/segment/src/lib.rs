//! The page store of a memory server: a [`Pool`] of capacity, and in it [`Segment`]s of pages.
//!
//! Pure apart from the memory itself: no sockets, no threads, and time is a parameter. A segment's capacity is reserved
//! when it is created, its memory is taken from the kernel only as pages arrive.
//!
//! Locks: the pool has none, its owner wraps it. A segment has one, held while versions are compared and pages stored or
//! dropped, never across a system call that may sleep for a client. The two are never taken in the order segment, pool.

mod lease;
mod pool;
mod segment;

pub use pool::{Pool, PoolError, SegmentSummary};
pub use segment::{Gone, META_BYTES, Segment};
