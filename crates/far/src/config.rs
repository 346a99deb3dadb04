//! What a far memory is made of: servers, credentials, names and times.

use std::path::PathBuf;
use std::time::Duration;

use rackmem_types::ServerAddress;

/// Pages of an extent, the unit of reservation and striping: 64 MiB, small enough to spread a target over its servers,
/// large enough that reserving is rare.
pub const EXTENT_PAGES: u32 = 16384;

/// How long a server may be unreachable before its pages count as lost: longer than a restart of a switch port, short
/// enough that a program does not seem to hang for good.
pub const LOST_AFTER: Duration = Duration::from_secs(5);

/// How long a server keeps the segments of a client that went away.
pub const LEASE: Duration = Duration::from_secs(60);

/// How far memory is reached and reserved.
#[derive(Clone, Debug)]
pub struct FarConfig {
    /// The servers; extents are taken from them in rotation, beginning with the first.
    pub servers: Vec<ServerAddress>,
    /// Segments that somebody else made for this far memory; they are used before any other is reserved.
    pub given: Vec<GivenSegment>,
    /// What proves to the servers who we are.
    pub credentials: Credentials,
    /// Prefix of the segments' names, for people: the program and its process id.
    pub name: String,
    /// Pages of an extent.
    pub extent_pages: u32,
    /// At most this much far memory; `None`: as much as the servers give.
    pub capacity_pages: Option<u32>,
    /// A server that is unreachable for so long is lost.
    pub lost_after: Duration,
    /// How long the servers keep the segments after the last connection is gone.
    pub lease: Duration,
}

impl FarConfig {
    /// The usual sizes and times.
    pub fn new(servers: Vec<ServerAddress>, credentials: Credentials, name: impl Into<String>) -> Self {
        Self {
            servers,
            given: Vec::new(),
            credentials,
            name: name.into(),
            extent_pages: EXTENT_PAGES,
            capacity_pages: None,
            lost_after: LOST_AFTER,
            lease: LEASE,
        }
    }
}

/// A part of a segment that somebody else made and keeps. It is emptied when it is taken into use and when it is given
/// back, and never destroyed.
#[derive(Clone, PartialEq, Eq)]
pub struct GivenSegment {
    /// Where it is.
    pub server: ServerAddress,
    /// Its id there.
    pub segment: u64,
    /// The secret that it was created with.
    pub owner: [u8; 16],
    /// The first page of the part.
    pub first: u64,
    /// Pages of the part.
    pub pages: u64,
}

impl std::fmt::Debug for GivenSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { server, segment, first, pages, .. } = self;
        write!(f, "pages {first}+{pages} of segment {segment:#x} on {server}")
    }
}

/// What proves to a server who we are, and to us who it is.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Speak TLS 1.3 with these files to servers over TCP. A Unix socket is guarded by its permissions instead.
    pub tls: Option<TlsFiles>,
    /// The pre-shared token.
    pub token: Option<Vec<u8>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "..");
        f.debug_struct("Credentials").field("tls", &self.tls).field("token", &token).finish()
    }
}

/// PEM files for TLS.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Our certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that signed the server's certificate.
    pub ca: PathBuf,
}
