//! What a port is asked for and what it reports.

use std::ops::Range;

use rackmem_types::{PageData, PageVersion, ServerAddress, Slot};

/// A page to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// Comes back with the answer.
    pub tag: u32,
    /// Which page.
    pub slot: Slot,
}

/// A page to be stored.
#[derive(Clone, Copy, Debug)]
pub struct WriteRequest<'a> {
    /// Comes back with the answer.
    pub tag: u32,
    /// Where to.
    pub slot: Slot,
    /// At least 1, and higher than what the slot ever had.
    pub version: PageVersion,
    /// [`rackmem_types::PageHash::checksum`] of the data.
    pub checksum: u64,
    /// The page.
    pub data: &'a PageData,
}

/// What a port reports from `advance` and `wait`.
#[derive(Debug)]
#[allow(missing_docs, reason = "tag and slot are those of the request")]
pub enum Event<'a> {
    /// A page was read; its data fits its checksum.
    Page { tag: u32, slot: Slot, version: PageVersion, checksum: u64, data: &'a PageData },
    /// The server has the page.
    Stored { tag: u32, slot: Slot },
    /// The page cannot be read.
    ReadFailed { tag: u32, slot: Slot, error: PageError },
    /// The page was not stored; whatever the slot had before may still be there.
    StoreFailed { tag: u32, slot: Slot, error: PageError },
    /// A server is gone for good with these slots. All its requests have failed with [`PageError::Lost`] before. Every
    /// port reports it once.
    ServerLost { slots: Vec<Range<u32>>, reason: String },
}

/// Why one page was not read or stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The server has no such page.
    #[error("the memory server does not have the page")]
    Missing,
    /// The page does not fit its checksum, twice in a row.
    #[error("the page was damaged on its way or on the memory server")]
    Corrupt,
    /// The server has a newer version of the page.
    #[error("the memory server has a newer version of the page")]
    Stale,
    /// The server has no memory for the page.
    #[error("the memory server has no memory left for the page")]
    Full,
    /// The server refused for a reason of its own, or no server holds this slot.
    #[error("the memory server refused the page")]
    Refused,
    /// The page's server is lost.
    #[error("the page's memory server is lost")]
    Lost,
}

/// One server as a far memory sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Where it listens.
    pub address: ServerAddress,
    /// Pages reserved there.
    pub reserved_pages: u64,
    /// Pages that have content there.
    pub used_pages: u64,
    /// Whether it answers.
    pub state: ServerState,
}

/// Whether a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// It does.
    Up,
    /// A port has lost its connection, for this reason, and tries again.
    Reconnecting(String),
    /// It is gone for good, for this reason.
    Lost(String),
}

impl ServerState {
    /// The state as one word: `up`, `reconnecting` or `lost`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Reconnecting(_) => "reconnecting",
            Self::Lost(_) => "lost",
        }
    }
}
