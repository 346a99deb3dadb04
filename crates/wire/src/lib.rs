//! Frames of the page protocol: what a pager and a memory server say to each other.
//!
//! Sans-IO: bytes in, frames out, and frames in, bytes out. This crate opens no socket, reads no clock and draws no
//! random number. Parsing borrows from the input, allocates nothing for pages, and believes no length before it has
//! checked it. The byte tables are in `docs/page-protocol.md`.

mod answer;
mod auth;
mod error;
mod header;
mod limits;
mod record;
mod request;

pub use answer::{Answer, Mapped, Segments, Status, Welcome, pages_head};
pub use auth::{Nonce, OwnerToken, Proof};
pub use error::{ErrorCode, WireError};
pub use header::{Header, MAGIC, Op, frame_len, reseal};
pub use limits::{
    ERROR_TEXT_MAX, FRAME_BYTES_MAX, GREETING_BYTES_MAX, IN_FLIGHT_MAX, LEASE_MAX_MS, NAME_BYTES_MAX,
    PAGES_PER_FRAME_MAX, SEGMENTS_MAX, VERSION,
};
pub use record::{PageRecord, PageStatus, SegmentInfo, StoreStatus, WriteRecord};
pub use request::{Request, write_head};
pub use zerocopy::little_endian::U64;

/// Ranges of pages, as DISCARD carries them.
pub use record::PageRange;
