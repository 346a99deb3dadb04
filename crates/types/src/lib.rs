//! Units and identifiers that every other crate of rackmem speaks: bytes, pages, far slots, page
//! checksums and the addresses of memory servers.
//!
//! This crate is pure: it does no IO, reads no clock and holds no global state.

mod bytes;
mod hash;
mod server;

pub use bytes::{Bytes, ParseBytesError};
pub use hash::{PageHash, is_zero};
pub use server::{ParseServerError, ServerAddress};

/// Bytes in a page. The page is the unit that moves; huge pages are split before they travel.
pub const PAGE_SIZE: usize = 4096;

/// Content of one page.
pub type PageData = [u8; PAGE_SIZE];

/// A page's place in the far memory of one target: an index into the target's far space.
///
/// The RMC table maps ranges of slots to segments of memory servers. 2³² slots are 16 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// How often a page was sent to its slot; a memory server refuses a version that is not newer.
pub type PageVersion = u64;
