//! What a client sends.

use rackmem_types::{PAGE_SIZE, PageData, PageVersion};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::auth::{Nonce, OwnerToken, Proof};
use crate::error::WireError;
use crate::header::{self, Op, RawFrame};
use crate::limits::NAME_BYTES_MAX;
use crate::record::{PageRange, WriteRecord};

/// A request, borrowed from the bytes it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// First frame of a connection. Answer: WELCOME or ERROR.
    Hello {
        /// Lowest version that the client speaks.
        version_min: u16,
        /// Highest version that the client speaks.
        version_max: u16,
        /// Drawn by the client.
        nonce: Nonce,
    },
    /// Second frame where WELCOME asks for it. Answer: OK or ERROR.
    Auth(Proof),
    /// Reserves a segment and opens it. Answer: SEGMENT or ERROR.
    SegmentCreate {
        /// For people; at most [`NAME_BYTES_MAX`] bytes.
        name: &'a str,
        /// Size.
        pages: u64,
        /// The secret that opens it again.
        owner: OwnerToken,
        /// How long it outlives the last connection that had it open.
        lease_ms: u64,
    },
    /// Opens a segment on this connection. Answer: SEGMENT or ERROR.
    SegmentOpen {
        /// The segment.
        segment: u64,
        /// The secret it was created with.
        owner: OwnerToken,
        /// The epoch it was created in.
        epoch: u64,
    },
    /// Frees a segment that this connection has open. Answer: OK or ERROR.
    SegmentDestroy {
        /// The segment.
        segment: u64,
    },
    /// Answer: SEGMENTS.
    SegmentList,
    /// Asks for the memory of a segment that this connection has open. Answer: MAPPED with a descriptor, or ERROR.
    SegmentMap {
        /// The segment.
        segment: u64,
    },
    /// Answer: PAGES or ERROR.
    Read {
        /// The segment, open on this connection.
        segment: u64,
        /// Which pages.
        pages: &'a [U64],
    },
    /// Answer: STORED or ERROR.
    Write {
        /// The segment, open on this connection.
        segment: u64,
        /// Which pages.
        records: &'a [WriteRecord],
        /// Their data, in the order of the records.
        data: &'a [PageData],
    },
    /// Forgets pages. No answer, unless ERROR.
    Discard {
        /// The segment, open on this connection.
        segment: u64,
        /// Pages with a higher version stay: they were stored after the discard was decided.
        up_to: PageVersion,
        /// Which pages; what lies outside the segment is ignored.
        ranges: &'a [PageRange],
    },
    /// Answer: PONG.
    Ping,
    /// Answer: STATUS.
    Stat,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHello {
    version_min: U16,
    version_max: U16,
    reserved: U32,
    nonce: Nonce,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawCreate {
    pages: U64,
    lease_ms: U64,
    owner: [u8; 16],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawOpen {
    owner: [u8; 16],
    epoch: U64,
}

impl<'a> Request<'a> {
    /// The first request in `bytes`, its id, and the bytes it took; `None` while it is not complete.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<(u64, Self, usize)>, WireError> {
        let Some(frame) = header::split(bytes)? else { return Ok(None) };
        let id = frame.header.request.get();
        let request = Self::from_frame(&frame)?;
        Ok(Some((id, request, frame.len)))
    }

    fn from_frame(frame: &RawFrame<'a>) -> Result<Self, WireError> {
        let field = |field| WireError::Field { op: frame.op as u8, field };
        let short = |_| field("length");
        let segment = frame.header.segment.get();
        Ok(match frame.op {
            Op::Hello => {
                let (hello, _) = RawHello::read_from_prefix(frame.head).map_err(|_| field("length"))?;
                Self::Hello {
                    version_min: hello.version_min.get(),
                    version_max: hello.version_max.get(),
                    nonce: hello.nonce,
                }
            }
            Op::Auth => Self::Auth(Proof(frame.head.try_into().map_err(short)?)),
            Op::SegmentCreate => {
                let (raw, name) = RawCreate::read_from_prefix(frame.head).map_err(|_| field("length"))?;
                Self::SegmentCreate {
                    name: std::str::from_utf8(name).map_err(|_| field("name"))?,
                    pages: raw.pages.get(),
                    owner: OwnerToken(raw.owner),
                    lease_ms: raw.lease_ms.get(),
                }
            }
            Op::SegmentOpen => {
                let raw = RawOpen::read_from_bytes(frame.head).map_err(|_| field("length"))?;
                Self::SegmentOpen { segment, owner: OwnerToken(raw.owner), epoch: raw.epoch.get() }
            }
            Op::SegmentDestroy => Self::SegmentDestroy { segment },
            Op::SegmentList => Self::SegmentList,
            Op::SegmentMap => Self::SegmentMap { segment },
            Op::Read => Self::Read {
                segment,
                pages: <[U64]>::ref_from_bytes(frame.head).map_err(|_| field("length"))?,
            },
            Op::Write => Self::Write {
                segment,
                records: <[WriteRecord]>::ref_from_bytes(frame.head).map_err(|_| field("length"))?,
                data: frame.data.as_chunks::<PAGE_SIZE>().0,
            },
            Op::Discard => {
                let (up_to, ranges) = U64::read_from_prefix(frame.head).map_err(|_| field("length"))?;
                Self::Discard {
                    segment,
                    up_to: up_to.get(),
                    ranges: <[PageRange]>::ref_from_bytes(ranges).map_err(|_| field("length"))?,
                }
            }
            Op::Ping => Self::Ping,
            Op::Stat => Self::Stat,
            _ => return Err(WireError::Op(frame.op as u8)),
        })
    }

    /// Appends the request as a frame to `out`.
    ///
    /// Panics if a limit of the protocol is exceeded, which the caller has checked.
    pub fn encode(&self, id: u64, out: &mut Vec<u8>) {
        match *self {
            Self::Hello { version_min, version_max, nonce } => {
                let raw = RawHello {
                    version_min: version_min.into(),
                    version_max: version_max.into(),
                    reserved: U32::ZERO,
                    nonce,
                };
                fixed(Op::Hello, id, 0, &raw, out);
            }
            Self::Auth(proof) => fixed(Op::Auth, id, 0, &proof.0, out),
            Self::SegmentCreate { name, pages, owner, lease_ms } => {
                assert!(name.len() <= NAME_BYTES_MAX, "a segment name of {} bytes", name.len());
                let raw = RawCreate { pages: pages.into(), lease_ms: lease_ms.into(), owner: owner.0 };
                header::encode(Op::SegmentCreate, (id, 0), 0, 0, out, |out| {
                    out.extend_from_slice(raw.as_bytes());
                    out.extend_from_slice(name.as_bytes());
                });
            }
            Self::SegmentOpen { segment, owner, epoch } => {
                fixed(Op::SegmentOpen, id, segment, &RawOpen { owner: owner.0, epoch: epoch.into() }, out);
            }
            Self::SegmentDestroy { segment } => fixed(Op::SegmentDestroy, id, segment, &(), out),
            Self::SegmentList => fixed(Op::SegmentList, id, 0, &(), out),
            Self::SegmentMap { segment } => fixed(Op::SegmentMap, id, segment, &(), out),
            Self::Read { segment, pages } => records(Op::Read, (id, segment), pages, 0, out),
            Self::Write { segment, records, data } => {
                assert_eq!(records.len(), data.len(), "one record for each page");
                write_head(id, segment, records, out);
                out.extend_from_slice(data.as_flattened());
            }
            Self::Discard { segment, up_to, ranges } => {
                header::encode(Op::Discard, (id, segment), ranges.len(), 0, out, |out| {
                    out.extend_from_slice(U64::new(up_to).as_bytes());
                    out.extend_from_slice(ranges.as_bytes());
                });
            }
            Self::Ping => fixed(Op::Ping, id, 0, &(), out),
            Self::Stat => fixed(Op::Stat, id, 0, &(), out),
        }
    }
}

/// Appends a WRITE frame up to its data to `out`; the caller sends the pages behind it, in the order of the records.
pub fn write_head(id: u64, segment: u64, pages: &[WriteRecord], out: &mut Vec<u8>) {
    records(Op::Write, (id, segment), pages, pages.len() * PAGE_SIZE, out);
}

fn fixed(op: Op, id: u64, segment: u64, payload: &(impl IntoBytes + Immutable), out: &mut Vec<u8>) {
    header::encode(op, (id, segment), 0, 0, out, |out| out.extend_from_slice(payload.as_bytes()));
}

fn records<R: IntoBytes + Immutable>(
    op: Op,
    ids: (u64, u64),
    records: &[R],
    data_len: usize,
    out: &mut Vec<u8>,
) {
    header::encode(op, ids, records.len(), data_len, out, |out| out.extend_from_slice(records.as_bytes()));
}
