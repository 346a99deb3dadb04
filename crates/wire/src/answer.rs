//! What a server sends.

use rackmem_types::{PAGE_SIZE, PageData};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::auth::Nonce;
use crate::error::{ErrorCode, WireError};
use crate::header::{self, Op, RawFrame};
use crate::limits::ERROR_TEXT_MAX;
use crate::record::{PageRecord, RawSegmentInfo, SegmentInfo, StoreStatus};

/// An answer, borrowed from the bytes it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// To HELLO.
    Welcome(Welcome),
    /// To AUTH and SEGMENT_DESTROY: done.
    Ok,
    /// To SEGMENT_CREATE and SEGMENT_OPEN: the segment is open on this connection.
    Segment {
        /// The segment.
        segment: u64,
        /// Its size.
        pages: u64,
        /// The server's epoch; after a restart it is another one and the segment is gone.
        epoch: u64,
    },
    /// To SEGMENT_LIST.
    Segments(Segments<'a>),
    /// To SEGMENT_MAP; the segment's descriptor travels with the first byte (`SCM_RIGHTS`).
    Mapped(Mapped),
    /// To READ.
    Pages {
        /// One for each page asked for, in the order asked.
        records: &'a [PageRecord],
        /// The data of the pages whose record is ok, in the order of the records.
        data: &'a [PageData],
    },
    /// To WRITE: a [`StoreStatus`] for each page. All are known ones after parsing.
    Stored(&'a [u8]),
    /// To PING.
    Pong,
    /// To STAT.
    Status(Status),
    /// The request was refused. With request id 0: the server closes the connection.
    Error {
        /// Why.
        code: ErrorCode,
        /// A number that belongs to the code (see [`ErrorCode`]).
        detail: u64,
        /// A sentence for the user.
        text: &'a str,
    },
}

/// What a server says about itself at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version that this connection speaks from now on.
    pub version: u16,
    /// Whether AUTH must come next.
    pub auth_required: bool,
    /// Unanswered requests that the client may have.
    pub in_flight_max: u32,
    /// Longest frame, in bytes.
    pub frame_bytes_max: u32,
    /// Most pages in one frame.
    pub pages_max: u32,
    /// Random at each start of the server.
    pub epoch: u64,
    /// Size of the pool.
    pub pages_total: u64,
    /// Pages that can be reserved now.
    pub pages_free: u64,
    /// Drawn by the server, for AUTH.
    pub nonce: Nonce,
}

/// Where things lie in a segment's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Size of the segment.
    pub pages: u64,
    /// Byte offset of page 0.
    pub data_offset: u64,
    /// Byte offset of page 0's version and checksum, two little-endian words of 64 bits; version 0 is an absent page.
    pub meta_offset: u64,
    /// Bytes in all.
    pub len: u64,
}

/// What a server counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "pages and bytes of the pool, and counters since the start, as their names say"
)]
pub struct Status {
    pub epoch: u64,
    pub uptime_ms: u64,
    pub pages_total: u64,
    pub pages_reserved: u64,
    pub pages_filled: u64,
    pub segments: u64,
    pub connections: u64,
    pub pages_read: u64,
    pub pages_written: u64,
    pub pages_discarded: u64,
    pub errors: u64,
}

/// The segments of a SEGMENTS answer; checked when parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Segments<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The segments.
    pub fn iter(&self) -> impl Iterator<Item = SegmentInfo<'a>> + use<'a> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || next_segment(&mut rest))
    }

    fn checked(count: usize, bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        for _ in 0..count {
            next_segment(&mut rest)?;
        }
        rest.is_empty().then_some(Self { count, bytes })
    }

    /// Appends a SEGMENTS frame to `out`: at most [`crate::SEGMENTS_MAX`] segments.
    pub fn encode<'b>(id: u64, segments: impl ExactSizeIterator<Item = SegmentInfo<'b>>, out: &mut Vec<u8>) {
        header::encode(Op::Segments, (id, 0), segments.len(), 0, out, |out| {
            for segment in segments {
                let raw = RawSegmentInfo {
                    id: segment.id.into(),
                    pages: segment.pages.into(),
                    filled: segment.filled.into(),
                    lease_left_ms: segment.lease_left_ms.unwrap_or(u64::MAX).into(),
                    attached: segment.attached.into(),
                    name_len: (segment.name.len() as u16).into(),
                    reserved: [0; 2],
                };
                out.extend_from_slice(raw.as_bytes());
                out.extend_from_slice(segment.name.as_bytes());
            }
        });
    }
}

fn next_segment<'a>(rest: &mut &'a [u8]) -> Option<SegmentInfo<'a>> {
    let (raw, tail) = RawSegmentInfo::read_from_prefix(rest).ok()?;
    let (name, tail) = tail.split_at_checked(raw.name_len.get().into())?;
    *rest = tail;
    let lease_left_ms = raw.lease_left_ms.get();
    Some(SegmentInfo {
        id: raw.id.get(),
        pages: raw.pages.get(),
        filled: raw.filled.get(),
        attached: raw.attached.get(),
        lease_left_ms: (lease_left_ms != u64::MAX).then_some(lease_left_ms),
        name: std::str::from_utf8(name).ok()?,
    })
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawWelcome {
    version: U16,
    auth_required: u8,
    reserved: u8,
    in_flight_max: U32,
    frame_bytes_max: U32,
    pages_max: U32,
    epoch: U64,
    pages_total: U64,
    pages_free: U64,
    nonce: Nonce,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawError {
    code: U16,
    reserved: [u8; 6],
    detail: U64,
}

impl<'a> Answer<'a> {
    /// The first answer in `bytes`, the id of its request, and the bytes it took; `None` while it is not complete.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<(u64, Self, usize)>, WireError> {
        let Some(frame) = header::split(bytes)? else { return Ok(None) };
        let answer = Self::from_frame(&frame)?;
        Ok(Some((frame.header.request.get(), answer, frame.len)))
    }

    fn from_frame(frame: &RawFrame<'a>) -> Result<Self, WireError> {
        let field = |field| WireError::Field { op: frame.op as u8, field };
        let words = |count| words(frame.head, count).ok_or(field("length"));
        Ok(match frame.op {
            Op::Welcome => {
                let (raw, _) = RawWelcome::read_from_prefix(frame.head).map_err(|_| field("length"))?;
                Self::Welcome(Welcome {
                    version: raw.version.get(),
                    auth_required: raw.auth_required != 0,
                    in_flight_max: raw.in_flight_max.get(),
                    frame_bytes_max: raw.frame_bytes_max.get(),
                    pages_max: raw.pages_max.get(),
                    epoch: raw.epoch.get(),
                    pages_total: raw.pages_total.get(),
                    pages_free: raw.pages_free.get(),
                    nonce: raw.nonce,
                })
            }
            Op::Ok => Self::Ok,
            Op::Segment => {
                let w = words(2)?;
                Self::Segment { segment: frame.header.segment.get(), pages: w[0].get(), epoch: w[1].get() }
            }
            Op::Segments => Self::Segments(
                Segments::checked(frame.header.count.get().into(), frame.head).ok_or(field("segment"))?,
            ),
            Op::Mapped => {
                let w = words(4)?;
                let [pages, data_offset, meta_offset, len] = std::array::from_fn(|i| w[i].get());
                Self::Mapped(Mapped { pages, data_offset, meta_offset, len })
            }
            Op::Pages => Self::pages(frame).ok_or(field("page record"))?,
            Op::Stored => {
                let known = frame.head.iter().all(|status| StoreStatus::from_wire(*status).is_some());
                known.then_some(Self::Stored(frame.head)).ok_or(field("status"))?
            }
            Op::Pong => Self::Pong,
            Op::Status => {
                let w = words(11)?;
                Self::Status(Status::from_words(std::array::from_fn(|i| w[i].get())))
            }
            Op::Error => {
                let (raw, text) = RawError::read_from_prefix(frame.head).map_err(|_| field("length"))?;
                Self::Error {
                    code: ErrorCode::from_wire(raw.code.get()).ok_or(field("code"))?,
                    detail: raw.detail.get(),
                    text: std::str::from_utf8(text).map_err(|_| field("text"))?,
                }
            }
            _ => return Err(WireError::Op(frame.op as u8)),
        })
    }

    fn pages(frame: &RawFrame<'a>) -> Option<Self> {
        let records = <[PageRecord]>::ref_from_bytes(frame.head).ok()?;
        let (data, rest) = frame.data.as_chunks::<PAGE_SIZE>();
        let known = records.iter().all(|record| record.status().is_some());
        let with_data = records.iter().filter(|record| record.is_ok()).count();
        (known && rest.is_empty() && with_data == data.len()).then_some(Self::Pages { records, data })
    }

    /// Appends the answer as a frame to `out`. ERROR text is cut at [`ERROR_TEXT_MAX`] bytes.
    ///
    /// Panics if a limit of the protocol is exceeded, which the caller has checked.
    pub fn encode(&self, id: u64, out: &mut Vec<u8>) {
        match *self {
            Self::Welcome(welcome) => {
                let raw = RawWelcome {
                    version: welcome.version.into(),
                    auth_required: welcome.auth_required.into(),
                    reserved: 0,
                    in_flight_max: welcome.in_flight_max.into(),
                    frame_bytes_max: welcome.frame_bytes_max.into(),
                    pages_max: welcome.pages_max.into(),
                    epoch: welcome.epoch.into(),
                    pages_total: welcome.pages_total.into(),
                    pages_free: welcome.pages_free.into(),
                    nonce: welcome.nonce,
                };
                fixed(Op::Welcome, (id, 0), raw.as_bytes(), out);
            }
            Self::Ok => fixed(Op::Ok, (id, 0), &[], out),
            Self::Segment { segment, pages, epoch } => {
                fixed(Op::Segment, (id, segment), [pages, epoch].map(U64::new).as_bytes(), out);
            }
            Self::Segments(segments) => {
                header::encode(Op::Segments, (id, 0), segments.count, 0, out, |out| {
                    out.extend_from_slice(segments.bytes);
                })
            }
            Self::Mapped(Mapped { pages, data_offset, meta_offset, len }) => {
                fixed(
                    Op::Mapped,
                    (id, 0),
                    [pages, data_offset, meta_offset, len].map(U64::new).as_bytes(),
                    out,
                );
            }
            Self::Pages { records, data } => {
                pages_head(id, records, out);
                out.extend_from_slice(data.as_flattened());
            }
            Self::Stored(statuses) => header::encode(Op::Stored, (id, 0), statuses.len(), 0, out, |out| {
                out.extend_from_slice(statuses);
            }),
            Self::Pong => fixed(Op::Pong, (id, 0), &[], out),
            Self::Status(status) => {
                fixed(Op::Status, (id, 0), status.to_words().map(U64::new).as_bytes(), out);
            }
            Self::Error { code, detail, text } => {
                let text = &text[..text.floor_char_boundary(ERROR_TEXT_MAX)];
                let raw = RawError { code: (code as u16).into(), reserved: [0; 6], detail: detail.into() };
                header::encode(Op::Error, (id, 0), 0, 0, out, |out| {
                    out.extend_from_slice(raw.as_bytes());
                    out.extend_from_slice(text.as_bytes());
                });
            }
        }
    }
}

/// Appends a PAGES frame up to its data to `out`; the caller sends the data of the ok pages behind it.
pub fn pages_head(id: u64, records: &[PageRecord], out: &mut Vec<u8>) {
    let data_len = records.iter().filter(|record| record.is_ok()).count() * PAGE_SIZE;
    header::encode(Op::Pages, (id, 0), records.len(), data_len, out, |out| {
        out.extend_from_slice(records.as_bytes());
    });
}

impl Status {
    fn from_words(words: [u64; 11]) -> Self {
        let [epoch, uptime_ms, pages_total, pages_reserved, pages_filled, segments, connections, ..] = words;
        let [.., pages_read, pages_written, pages_discarded, errors] = words;
        Self {
            epoch,
            uptime_ms,
            pages_total,
            pages_reserved,
            pages_filled,
            segments,
            connections,
            pages_read,
            pages_written,
            pages_discarded,
            errors,
        }
    }

    fn to_words(self) -> [u64; 11] {
        [
            self.epoch,
            self.uptime_ms,
            self.pages_total,
            self.pages_reserved,
            self.pages_filled,
            self.segments,
            self.connections,
            self.pages_read,
            self.pages_written,
            self.pages_discarded,
            self.errors,
        ]
    }
}

fn words(bytes: &[u8], count: usize) -> Option<&[U64]> {
    <[U64]>::ref_from_bytes(bytes).ok().filter(|words| words.len() == count)
}

fn fixed(op: Op, ids: (u64, u64), payload: &[u8], out: &mut Vec<u8>) {
    header::encode(op, ids, 0, 0, out, |out| out.extend_from_slice(payload));
}
