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

/// A connection to one server, for its segments.
pub struct Segments {
    server: Server,
}

impl Segments {
    /// Dials the server and proves who we are.
    pub fn connect(address: ServerAddress, credentials: &Credentials) -> Result<Self, FarError> {
        Ok(Self { server: Server::connect(Dialer::new(address, credentials)?)? })
    }

    /// A secret for a new segment.
    pub fn owner() -> [u8; 16] {
        dial::random()
    }

    /// Makes a segment, and keeps it as long as this connection lives; its id.
    pub fn create(&self, name: &str, pages: u64, owner: [u8; 16], lease: Duration) -> Result<u64, FarError> {
        self.server.segment_make(name, pages, OwnerToken(owner), lease)
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
