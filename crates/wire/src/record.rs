//! The records that travel in numbers: pages, ranges, statuses, segments.

use rackmem_types::PageVersion;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// One page of a PAGES answer. The data of the pages that are [`PageStatus::Ok`] follows behind all records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PageRecord {
    /// Index of the page in its segment.
    pub page: U64,
    /// Version that the server has, 0 if the page is missing.
    pub version: U64,
    /// Low half of the page's XXH3-128, 0 if the page is missing.
    pub checksum: U64,
    /// A [`PageStatus`].
    pub status: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// Whether a page's data comes with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageStatus {
    /// The data is there.
    Ok = 0,
    /// Never written, or discarded.
    Missing = 1,
    /// The segment has no such page.
    OutOfRange = 2,
}

impl PageRecord {
    /// Record of a page whose data follows.
    pub fn ok(page: u64, version: PageVersion, checksum: u64) -> Self {
        Self {
            page: page.into(),
            version: version.into(),
            checksum: checksum.into(),
            status: PageStatus::Ok as u8,
            reserved: [0; 7],
        }
    }

    /// Record of a page without data.
    pub fn absent(page: u64, status: PageStatus) -> Self {
        Self {
            page: page.into(),
            version: U64::ZERO,
            checksum: U64::ZERO,
            status: status as u8,
            reserved: [0; 7],
        }
    }

    /// The status, if it is one.
    pub fn status(&self) -> Option<PageStatus> {
        [PageStatus::Ok, PageStatus::Missing, PageStatus::OutOfRange]
            .into_iter()
            .find(|status| *status as u8 == self.status)
    }

    /// Whether the page's data follows.
    pub fn is_ok(&self) -> bool {
        self.status == PageStatus::Ok as u8
    }
}

/// One page of a WRITE. The data of all pages follows behind all records, in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct WriteRecord {
    /// Index of the page in its segment.
    pub page: U64,
    /// Version, at least 1, that replaces any lower one.
    pub version: U64,
    /// Low half of the page's XXH3-128.
    pub checksum: U64,
}

impl WriteRecord {
    /// Record of a page to be written.
    pub fn new(page: u64, version: PageVersion, checksum: u64) -> Self {
        Self { page: page.into(), version: version.into(), checksum: checksum.into() }
    }
}

/// What became of one page of a WRITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StoreStatus {
    /// The server has it.
    Ok = 0,
    /// The server has a higher version, or the same version with another checksum.
    Stale = 1,
    /// The data does not match the checksum: damaged on its way, send it again.
    Corrupt = 2,
    /// The segment has no such page.
    OutOfRange = 3,
    /// The server has no memory for it.
    Full = 4,
}

impl StoreStatus {
    /// The status with this number.
    pub fn from_wire(number: u8) -> Option<Self> {
        [Self::Ok, Self::Stale, Self::Corrupt, Self::OutOfRange, Self::Full]
            .into_iter()
            .find(|status| *status as u8 == number)
    }
}

/// Pages `first` to `first + count - 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PageRange {
    /// The first page.
    pub first: U64,
    /// How many.
    pub count: U64,
}

impl PageRange {
    /// `count` pages from `first` on.
    pub fn new(first: u64, count: u64) -> Self {
        Self { first: first.into(), count: count.into() }
    }
}

/// What SEGMENTS says about one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo<'a> {
    /// Its id, unique in an epoch of the server.
    pub id: u64,
    /// Its size, all of which is reserved.
    pub pages: u64,
    /// Pages that have content.
    pub filled: u64,
    /// Connections that have it open.
    pub attached: u32,
    /// Milliseconds until it is freed, while nobody has it open.
    pub lease_left_ms: Option<u64>,
    /// Its name, not necessarily unique.
    pub name: &'a str,
}

/// How [`SegmentInfo`] travels; the name follows.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawSegmentInfo {
    pub(crate) id: U64,
    pub(crate) pages: U64,
    pub(crate) filled: U64,
    pub(crate) lease_left_ms: U64,
    pub(crate) attached: U32,
    pub(crate) name_len: U16,
    pub(crate) reserved: [u8; 2],
}

const _: () = assert!(size_of::<PageRecord>() == 32 && size_of::<WriteRecord>() == 24);
const _: () = assert!(size_of::<PageRange>() == 16 && size_of::<RawSegmentInfo>() == 40);
