//! Segments that are made for others: a controller, or whoever gives them to a pager, makes, keeps and destroys them here.
//!
//! No page is moved. A segment outlives the last connection that had it open by its lease.

use std::time::Duration;

use rackmem_types::ServerAddress;
use rackmem_wire::OwnerToken;

use crate::config::Credentials;
use crate::dial::{self, Dialer};
use crate::error::FarError;
use crate::server::{Part, Server};

/// What a memory server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// Its life: another one follows when it is restarted, and then all segments are gone.
    pub epoch: u64,
    /// Pages of its pool.
    pub pages: u64,
    /// Its segments.
    pub segments: Vec<SegmentView>,
}

/// A segment as a memory server lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentView {
    /// Its id there.
    pub id: u64,
    /// What its maker calls it.
    pub name: String,
    /// Its pages.
    pub pages: u64,
    /// Pages with content.
    pub filled: u64,
    /// Connections that have it open.
    pub attached: u32,
    /// Time until it is freed, while nobody has it open.
    pub lease_left: Option<Duration>,
}

/// A connection to one server, for its segments.
pub struct Segments {
    server: Server,
}

impl Segments {
    /// Dials the server and proves who we are.
    pub fn connect(address: ServerAddress, credentials: &Credentials) -> Result<Self, FarError> {
        Ok(Self { server: Server::connect(Dialer::new(address, credentials)?)? })
    }

    /// Where the server is.
    pub fn address(&self) -> ServerAddress {
        self.server.address()
    }

    /// A secret for a new segment.
    pub fn owner() -> [u8; 16] {
        dial::random()
    }

    /// Makes a segment, and keeps it as long as this connection lives; its id.
    pub fn create(&self, name: &str, pages: u64, owner: [u8; 16], lease: Duration) -> Result<u64, FarError> {
        self.server.segment_make(name, pages, OwnerToken(owner), lease)
    }

    /// What the server has now: its life, its pool, and all segments in it, whoever made them.
    pub fn pool(&self) -> Result<PoolView, FarError> {
        let pages = self.server.pages_total()?;
        Ok(PoolView { epoch: self.server.epoch, pages, segments: self.server.segment_list()? })
    }

    /// Keeps a segment as long as this connection lives; how many pages it has.
    pub fn keep(&self, segment: u64, owner: [u8; 16]) -> Result<u64, FarError> {
        self.server.segment_open(segment, OwnerToken(owner))
    }

    /// Forgets `pages` of a segment from `first` on.
    pub fn empty(&self, segment: u64, owner: [u8; 16], first: u64, pages: u64) -> Result<(), FarError> {
        self.server.segment_empty(&Part { segment, owner: OwnerToken(owner), first, pages })
    }

    /// Destroys a segment. Whoever still has it open finds it gone.
    pub fn destroy(&self, segment: u64, owner: [u8; 16]) -> Result<(), FarError> {
        self.server.segment_end(segment, OwnerToken(owner))
    }
}
