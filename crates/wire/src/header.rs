//! The 32 bytes that begin every frame, the operations, and the checks that need nothing else.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::WireError;
use crate::limits::{
    ERROR_TEXT_MAX, FRAME_BYTES_MAX, GREETING_BYTES_MAX, NAME_BYTES_MAX, PAGES_PER_FRAME_MAX,
};
use crate::record::{PageRange, PageRecord, WriteRecord};
use rackmem_types::PAGE_SIZE;

/// First four bytes of every frame: `RKMP`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"RKMP");

/// Begins every frame; all fields little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: U32,
    /// An [`Op`].
    pub op: u8,
    /// Zero in version 1.
    pub flags: u8,
    /// Records in the payload, zero where the operation has none.
    pub count: U16,
    /// Bytes that follow the header.
    pub len: U32,
    /// Check sum over this header (with this field zero) and the payload without its page data. Pages carry their own.
    pub check: U32,
    /// Chosen by the client, repeated in the answer. Zero: about the connection, not about a request.
    pub request: U64,
    /// The segment meant, zero where there is none.
    pub segment: U64,
}

const _: () = assert!(size_of::<Header>() == 32);

/// What a frame asks or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the protocol's words; Request and Answer say what each means")]
pub enum Op {
    Hello = 0x01,
    Auth = 0x02,
    SegmentCreate = 0x03,
    SegmentOpen = 0x04,
    SegmentDestroy = 0x05,
    SegmentList = 0x06,
    SegmentMap = 0x07,
    Read = 0x08,
    Write = 0x09,
    Discard = 0x0a,
    Ping = 0x0b,
    Stat = 0x0c,
    Welcome = 0x81,
    Ok = 0x82,
    Segment = 0x83,
    Segments = 0x86,
    Mapped = 0x87,
    Pages = 0x88,
    Stored = 0x89,
    Pong = 0x8b,
    Status = 0x8c,
    Error = 0xff,
}

impl Op {
    const ALL: [Self; 22] = [
        Self::Hello,
        Self::Auth,
        Self::SegmentCreate,
        Self::SegmentOpen,
        Self::SegmentDestroy,
        Self::SegmentList,
        Self::SegmentMap,
        Self::Read,
        Self::Write,
        Self::Discard,
        Self::Ping,
        Self::Stat,
        Self::Welcome,
        Self::Ok,
        Self::Segment,
        Self::Segments,
        Self::Mapped,
        Self::Pages,
        Self::Stored,
        Self::Pong,
        Self::Status,
        Self::Error,
    ];

    /// The operation with this number.
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|op| *op as u8 == number)
    }

    /// Whether a server sends it.
    pub const fn is_answer(self) -> bool {
        self as u8 & 0x80 != 0
    }

    /// The payload lengths that `count` records allow, shortest and longest.
    fn lengths(self, count: usize) -> (usize, usize) {
        let exactly = |len| (len, len);
        match self {
            // A later version may append fields; what version 1 knows stays where it is.
            Self::Hello => (24, GREETING_BYTES_MAX),
            Self::Welcome => (56, GREETING_BYTES_MAX),
            Self::Auth => exactly(32),
            Self::SegmentCreate => (32, 32 + NAME_BYTES_MAX),
            Self::SegmentOpen => exactly(24),
            Self::Segment => exactly(16),
            Self::Segments => (count * 40, count * (40 + NAME_BYTES_MAX)),
            Self::Mapped => exactly(32),
            Self::Status => exactly(88),
            Self::Read => exactly(count * size_of::<U64>()),
            Self::Write => exactly(count * (size_of::<WriteRecord>() + PAGE_SIZE)),
            Self::Discard => exactly(size_of::<U64>() + count * size_of::<PageRange>()),
            Self::Pages => (count * size_of::<PageRecord>(), count * (size_of::<PageRecord>() + PAGE_SIZE)),
            Self::Stored => exactly(count),
            Self::Error => (16, 16 + ERROR_TEXT_MAX),
            Self::SegmentDestroy | Self::SegmentList | Self::SegmentMap => exactly(0),
            Self::Ping | Self::Stat | Self::Ok | Self::Pong => exactly(0),
        }
    }

    const fn carries_pages(self) -> bool {
        matches!(self, Self::Read | Self::Write | Self::Discard | Self::Pages | Self::Stored)
    }

    /// Bytes of the payload that the header's check sum covers.
    fn checked_len(self, count: usize, len: usize) -> usize {
        match self {
            Self::Write => count * size_of::<WriteRecord>(),
            Self::Pages => count * size_of::<PageRecord>(),
            _ => len,
        }
    }
}

/// A whole frame, split: its operation, its header, the checked part of its payload, and the page data.
pub(crate) struct RawFrame<'a> {
    pub(crate) op: Op,
    pub(crate) header: Header,
    pub(crate) head: &'a [u8],
    pub(crate) data: &'a [u8],
    pub(crate) len: usize,
}

/// Length in bytes of the frame that `bytes` begins with, as soon as its header is there. A reader makes room by it;
/// it is never more than [`FRAME_BYTES_MAX`].
pub fn frame_len(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    Ok(header(bytes)?.map(|(_, header)| size_of::<Header>() + header.len.get() as usize))
}

fn header(bytes: &[u8]) -> Result<Option<(Op, Header)>, WireError> {
    if let Some(first) = bytes.first_chunk::<4>()
        && u32::from_le_bytes(*first) != MAGIC
    {
        return Err(WireError::Magic(u32::from_le_bytes(*first)));
    }
    let Ok((header, _)) = Header::read_from_prefix(bytes) else { return Ok(None) };
    let op = Op::from_wire(header.op).ok_or(WireError::Op(header.op))?;
    let (count, len) = (header.count.get(), header.len.get());
    let wrong_length = || WireError::Length { op: header.op, count, len };
    if op.carries_pages() && !(1..=PAGES_PER_FRAME_MAX).contains(&usize::from(count)) {
        return Err(wrong_length());
    }
    let max = FRAME_BYTES_MAX - size_of::<Header>();
    if len as usize > max {
        return Err(WireError::TooLong { op: header.op, len, max });
    }
    let (shortest, longest) = op.lengths(count.into());
    if !(shortest..=longest).contains(&(len as usize)) {
        return Err(wrong_length());
    }
    Ok(Some((op, header)))
}

/// The first frame of `bytes`, once all of it is there.
pub(crate) fn split(bytes: &[u8]) -> Result<Option<RawFrame<'_>>, WireError> {
    let Some((op, header)) = header(bytes)? else { return Ok(None) };
    let len = header.len.get() as usize;
    let Some(payload) = bytes[size_of::<Header>()..].get(..len) else { return Ok(None) };
    let (head, data) = payload.split_at(op.checked_len(header.count.get().into(), len));
    if check(header, head) != header.check.get() {
        return Err(WireError::Check(header.op));
    }
    Ok(Some(RawFrame { op, header, head, data, len: size_of::<Header>() + len }))
}

/// Makes the check sum of the frame that `bytes` begins with right again, if its lengths are right and all of it is there.
/// For tests and fuzzing, which change frames and want to be heard all the same.
pub fn reseal(bytes: &mut [u8]) {
    let Ok(Some((op, mut header))) = header(bytes) else { return };
    let len = op.checked_len(header.count.get().into(), header.len.get() as usize);
    let Some(head) = bytes[size_of::<Header>()..].get(..len) else { return };
    header.check = check(header, head).into();
    bytes[..size_of::<Header>()].copy_from_slice(header.as_bytes());
}

fn check(mut header: Header, head: &[u8]) -> u32 {
    header.check = U32::ZERO;
    xxh3_64_with_seed(head, xxh3_64(header.as_bytes())) as u32
}

/// Appends a frame's header and head to `out`; `data_len` bytes of pages follow, by whatever way.
pub(crate) fn encode(
    op: Op,
    (request, segment): (u64, u64),
    count: usize,
    data_len: usize,
    out: &mut Vec<u8>,
    head: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; size_of::<Header>()]);
    head(out);
    let (place, head) = out[start..].split_at_mut(size_of::<Header>());
    let len = head.len() + data_len;
    assert!(count <= usize::from(u16::MAX) && len <= FRAME_BYTES_MAX, "a frame that nobody would accept");
    let mut header = Header {
        magic: MAGIC.into(),
        op: op as u8,
        flags: 0,
        count: (count as u16).into(),
        len: (len as u32).into(),
        check: U32::ZERO,
        request: request.into(),
        segment: segment.into(),
    };
    header.check = check(header, head).into();
    place.copy_from_slice(header.as_bytes());
}
