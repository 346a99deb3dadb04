//! The limits of the protocol, each with its reason.

use crate::header::Header;
use crate::record::PageRecord;
use rackmem_types::PAGE_SIZE;

/// The protocol version that this crate speaks.
pub const VERSION: u16 = 1;

/// Pages in one frame: 1 MiB of data. Larger frames gain nothing (the cost per frame is long lost in the copying) and
/// would make a lone page wait longer behind them.
pub const PAGES_PER_FRAME_MAX: usize = 256;

/// Bytes in one frame: a PAGES answer with every page in it, the largest frame there is.
pub const FRAME_BYTES_MAX: usize =
    size_of::<Header>() + PAGES_PER_FRAME_MAX * (size_of::<PageRecord>() + PAGE_SIZE);

/// Bytes in a frame before the peer is known: HELLO, AUTH and what answers them are far smaller.
pub const GREETING_BYTES_MAX: usize = 1024;

/// Requests that a client may have unanswered on one connection. With one page each this is 4 MiB of answers, about what
/// a socket holds; the server never queues requests itself, it leaves them in the socket.
pub const IN_FLIGHT_MAX: u32 = 1024;

/// Bytes in a segment's name; long enough for a host name, a program and a process id.
pub const NAME_BYTES_MAX: usize = 128;

/// Bytes of text in an ERROR frame: a sentence or two.
pub const ERROR_TEXT_MAX: usize = 512;

/// Segments that one server keeps, so that SEGMENTS with the longest names fits into one frame.
pub const SEGMENTS_MAX: usize = 4096;

/// Longest lease: a week. A longer one is most likely a mistake in a unit and would hold memory nobody comes back for.
pub const LEASE_MAX_MS: u64 = 7 * 24 * 3600 * 1000;

const _: () = assert!(
    SEGMENTS_MAX * (size_of::<crate::record::RawSegmentInfo>() + NAME_BYTES_MAX)
        <= FRAME_BYTES_MAX - size_of::<Header>()
);
