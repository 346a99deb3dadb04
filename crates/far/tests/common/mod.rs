//! What the tests of this crate share: a real memory server, certificates, pages that know who they are, and a client
//! that checks the promise.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses its part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

pub mod proxy;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use rackmem_far::{
    Credentials, Event, FarConfig, FarMemory, GivenSegment, PageError, Port, ReadRequest, Segments, TlsFiles,
    WriteRequest,
};
use rackmem_memory_server::{Listen, Server, ServerConfig, Shutdown};
use rackmem_types::{Bytes, PAGE_SIZE, PageData, PageHash, ServerAddress, Slot};

/// Longest wait of any test for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running memory server, ended when dropped.
pub struct Host {
    shutdown: Shutdown,
    server: Option<Server>,
}

impl Host {
    pub fn start(config: &ServerConfig) -> Self {
        let shutdown = Shutdown::new().unwrap();
        let server = Server::start(config, &shutdown).unwrap();
        Self { shutdown, server: Some(server) }
    }

    /// On a port of the loopback that the kernel chooses.
    pub fn tcp(pages: u64) -> Self {
        Self::start(&ServerConfig::new(Bytes::from_pages(pages), vec![any_port()]))
    }

    /// As [`Host::tcp`], with TLS.
    pub fn tls(pages: u64, files: &TlsFiles) -> Self {
        let mut config = ServerConfig::new(Bytes::from_pages(pages), vec![any_port()]);
        let TlsFiles { cert, key, ca } = files.clone();
        config.tls = Some(rackmem_memory_server::TlsFiles { cert, key, ca });
        Self::start(&config)
    }

    pub fn unix(pages: u64, path: &Path) -> Self {
        Self::start(&ServerConfig::new(Bytes::from_pages(pages), vec![Listen::Unix(path.to_owned())]))
    }

    /// Where it listens.
    pub fn address(&self) -> ServerAddress {
        self.server.as_ref().unwrap().places()[0].to_string().parse().unwrap()
    }

    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shutdown.trigger();
        if let Some(server) = self.server.take() {
            server.wait();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end();
    }
}

pub fn any_port() -> Listen {
    Listen::Tcp { host: "127.0.0.1".into(), port: 0 }
}

/// A client of `addresses` with small extents and little patience.
pub fn config(addresses: Vec<ServerAddress>) -> FarConfig {
    FarConfig {
        extent_pages: 1024,
        lost_after: Duration::from_millis(600),
        ..FarConfig::new(addresses, Credentials::default(), "test.1")
    }
}

/// How long the segments that tests make are kept without a client.
const SEGMENT_LEASE: Duration = Duration::from_secs(30);

/// A segment that somebody makes for another, and the whole of it as it is given.
pub fn made(host: &Host, pages: u64) -> (Segments, GivenSegment) {
    let segments = Segments::connect(host.address(), &Credentials::default()).unwrap();
    let owner = Segments::owner();
    let segment = segments.create("made for another", pages, owner, SEGMENT_LEASE).unwrap();
    (segments, GivenSegment { server: host.address(), segment, owner, first: 0, pages })
}

/// A client that has nothing but what is given to it.
pub fn client(given: Vec<GivenSegment>) -> FarConfig {
    FarConfig { given, ..config(Vec::new()) }
}

/// A certificate authority in a directory, and certificates that it signed.
pub fn certificates(directory: &Path, authority: &str) -> TlsFiles {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let leaf = CertificateParams::new(names).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let file = |name: &str, text: String| {
        let path = directory.join(format!("{authority}-{name}.pem"));
        std::fs::write(&path, text).unwrap();
        path
    };
    TlsFiles {
        cert: file("cert", leaf.pem()),
        key: file("key", leaf_key.serialize_pem()),
        ca: file("ca", ca.pem()),
    }
}

/// A page whose content says whose and which it is.
pub fn page(slot: Slot, version: u64) -> PageData {
    let mut data = [0; PAGE_SIZE];
    for (i, word) in data.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *word = (u64::from(slot.0) << 40 ^ version << 16 ^ i as u64)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .to_le_bytes();
    }
    data
}

/// What a slot may hold: the version stored last and, after a failed store, also the one that was tried.
#[derive(Clone, Debug, Default)]
struct Expected {
    stored: u64,
    tried: u64,
}

/// A port under test and a model of what it must give.
pub struct Checked {
    pub memory: FarMemory,
    pub port: Port,
    slots: HashMap<u32, Expected>,
    pub reads_failed: usize,
    pub stores_failed: usize,
    pub pages_read: usize,
    /// Slots and reasons of lost servers.
    pub lost: Vec<(Vec<std::ops::Range<u32>>, String)>,
}

impl Checked {
    pub fn new(memory: FarMemory) -> Self {
        let port = memory.port().unwrap();
        let slots = HashMap::new();
        Self { memory, port, slots, reads_failed: 0, stores_failed: 0, pages_read: 0, lost: Vec::new() }
    }

    /// Stores the next version of `stores` and reads `reads`, which must be other slots, waits for all answers and holds
    /// them against the promise.
    pub fn round(&mut self, stores: &[u32], reads: &[u32]) {
        self.begin(stores, reads);
        self.settle(stores, reads);
    }

    pub fn begin(&mut self, stores: &[u32], reads: &[u32]) {
        let pages: Vec<_> = stores
            .iter()
            .map(|slot| {
                let expected = self.slots.entry(*slot).or_default();
                expected.tried = expected.tried.max(expected.stored) + 1;
                (Slot(*slot), expected.tried, page(Slot(*slot), expected.tried))
            })
            .collect();
        let writes: Vec<_> = pages
            .iter()
            .map(|(slot, version, data)| {
                let checksum = PageHash::of(data).checksum();
                WriteRequest { tag: slot.0, slot: *slot, version: *version, checksum, data }
            })
            .collect();
        self.port.write(&writes);
        let reads: Vec<_> = reads.iter().map(|slot| ReadRequest { tag: *slot, slot: Slot(*slot) }).collect();
        self.port.read(&reads);
    }

    pub fn settle(&mut self, stores: &[u32], reads: &[u32]) {
        let mut waiting: HashSet<(bool, u32)> =
            stores.iter().map(|slot| (true, *slot)).chain(reads.iter().map(|slot| (false, *slot))).collect();
        let until = Instant::now() + PATIENCE;
        while self.port.in_flight() > 0 {
            assert!(Instant::now() < until, "{} requests are never answered", self.port.in_flight());
            let Self { port, slots, reads_failed, stores_failed, pages_read, lost, .. } = self;
            port.wait(Some(Duration::from_millis(100)), &mut |event| match event {
                Event::Page { tag, slot, version, checksum, data } => {
                    assert_eq!(tag, slot.0);
                    assert!(waiting.remove(&(false, tag)), "an answer that nobody waits for: {tag}");
                    let expected = &slots[&tag];
                    let possible = version == expected.stored || version == expected.tried;
                    assert!(possible && version > 0, "slot {tag} has version {version}, not {expected:?}");
                    assert!(*data == page(slot, version), "slot {tag} has another content");
                    assert_eq!(checksum, PageHash::of(data).checksum());
                    *pages_read += 1;
                }
                Event::Stored { tag, .. } => {
                    assert!(waiting.remove(&(true, tag)), "an answer that nobody waits for: {tag}");
                    let expected = slots.get_mut(&tag).unwrap();
                    expected.stored = expected.tried;
                }
                Event::ReadFailed { tag, error, .. } => {
                    assert!(waiting.remove(&(false, tag)), "an answer that nobody waits for: {tag}");
                    let never_stored = slots.get(&tag).is_none_or(|expected| expected.stored == 0);
                    assert!(never_stored || error != PageError::Missing, "slot {tag} has vanished");
                    *reads_failed += 1;
                }
                Event::StoreFailed { tag, error, .. } => {
                    assert!(waiting.remove(&(true, tag)), "an answer that nobody waits for: {tag}");
                    assert_ne!(error, PageError::Stale, "slot {tag}");
                    *stores_failed += 1;
                }
                Event::ServerLost { slots, reason } => lost.push((slots, reason)),
            });
        }
        assert!(waiting.is_empty(), "requests without an answer: {waiting:?}");
    }

    /// Waits until a server is reported lost.
    pub fn wait_lost(&mut self) -> (Vec<std::ops::Range<u32>>, String) {
        let until = Instant::now() + PATIENCE;
        while self.lost.is_empty() {
            assert!(Instant::now() < until, "the loss of a server is never reported");
            let lost = &mut self.lost;
            self.port.wait(Some(Duration::from_millis(100)), &mut |event| {
                if let Event::ServerLost { slots, reason } = event {
                    lost.push((slots, reason));
                }
            });
        }
        self.lost.remove(0)
    }
}

/// Small numbers that look random and are the same for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
