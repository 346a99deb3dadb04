//! The far memory of one target: its servers, its extents, and the RMC table that all its ports share.
//!
//! `FarMemory` reserves and frees, on control connections and with patience. It never moves a page; ports do.
//!
//! One lock guards the table, and with it the list of servers, which only gets longer. Ports read it only when the generation says that it has changed, so nobody waits for it
//! while pages move. No other lock is taken while it is held; growing has a lock of its own around the whole
//! conversation with a server.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rackmem_types::Slot;
use rackmem_wire::{LEASE_MAX_MS, NAME_BYTES_MAX};
use rustix::event::EventfdFlags;

use crate::config::FarConfig;
use crate::dial::Dialer;
use crate::error::FarError;
use crate::event::ServerStatus;
use crate::given;
use crate::lend::{Lending, Lent};
use crate::port::Port;
use crate::rmc::Rmc;
use crate::server::{Extent, Server};

/// Digits and dot that number the segments behind the name's prefix.
const NAME_SUFFIX_BYTES: usize = 12;

/// A handle on the far memory; clones are handles on the same.
#[derive(Clone)]
pub struct FarMemory {
    pub(crate) shared: Arc<Shared>,
}

/// What handles and ports have in common.
pub(crate) struct Shared {
    pub(crate) config: FarConfig,
    /// Changes with every extent and every server.
    pub(crate) generation: AtomicU64,
    table: Mutex<Table>,
    /// Held by who grows.
    pub(crate) lent: Mutex<Lent>,
    /// The server that the next extent is asked of first.
    rotation: AtomicUsize,
    bells: Mutex<Vec<Weak<Bell>>>,
}

/// The RMC table and, in the same order, the extents behind its entries; and the servers, which both count from 0.
#[derive(Clone, Default)]
pub(crate) struct Table {
    pub(crate) rmc: Rmc,
    pub(crate) extents: Vec<Arc<Extent>>,
    pub(crate) servers: Vec<Arc<Server>>,
}

impl Table {
    /// The extent that has the slot, unless it was shed.
    pub(crate) fn entry(&self, slot: Slot) -> Option<usize> {
        self.rmc.entry(slot).filter(|extent| !self.extents[*extent].is_gone())
    }
}

impl FarMemory {
    /// Dials every server, agrees on a version and proves who we are; nothing is reserved yet. Segments that were given are
    /// seen to be there, and emptied.
    pub fn connect(config: FarConfig) -> Result<Self, FarError> {
        let addresses = Lending::of(&config).addresses();
        if addresses.is_empty() {
            return Err(FarError::NoServers);
        }
        let connect = |address: &rackmem_types::ServerAddress| {
            Server::connect(Dialer::new(address.clone(), &config.credentials)?)
        };
        let servers: Vec<Arc<Server>> =
            addresses.iter().map(|address| connect(address).map(Arc::new)).collect::<Result<_, _>>()?;
        given::empty(&config.given, &servers)?;
        Ok(Self::new(config, Table { servers, ..Table::default() }))
    }

    /// What is left of the segments that were given is what no extent of `table` has in use.
    pub(crate) fn new(mut config: FarConfig, table: Table) -> Self {
        let prefix = config.name.floor_char_boundary(NAME_BYTES_MAX - NAME_SUFFIX_BYTES);
        config.name.truncate(prefix);
        config.extent_pages = config.extent_pages.max(1);
        config.lease = config.lease.min(std::time::Duration::from_millis(LEASE_MAX_MS));
        let lent = Lent::new(Lending::of(&config), &table.records());
        let shared = Shared {
            config,
            generation: AtomicU64::new(0),
            table: Mutex::new(table),
            lent: Mutex::new(lent),
            rotation: AtomicUsize::new(0),
            bells: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// A port with connections of its own to every server that is not lost.
    pub fn port(&self) -> Result<Port, FarError> {
        Port::new(self.shared.clone())
    }

    /// Takes one more extent, of what was given while there is some left, else on the next server in rotation that has
    /// room; its slots. `None`: nobody has room, or the capacity is reached. Where no server has room for a whole extent, a smaller one is taken. Blocks for a
    /// conversation with a server; an error is one that all servers without room do not explain.
    pub fn grow(&self) -> Result<Option<Range<u32>>, FarError> {
        let shared = &self.shared;
        let mut lent = shared.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let Table { rmc, extents, servers } = shared.table().clone();
        let start = rmc.entries().last().map_or(0, |entry| entry.end);
        // What a lost server had is nothing that could be used, and what is to go is being exchanged.
        let counts = |extent: &&Arc<Extent>| {
            let goes = extent.is_gone() || lent.going.iter().any(|slots| slots.start == extent.start);
            !goes && !servers[extent.server].is_lost()
        };
        let held = extents.iter().filter(counts);
        let reserved = held.map(|extent| extent.pages).sum();
        let limit = lent.all.capacity_pages.unwrap_or(u32::MAX).saturating_sub(reserved);
        let wanted = shared.config.extent_pages.min(limit).min(u32::MAX - start);
        if wanted == 0 {
            return Ok(None);
        }
        let mut failure = None;
        match shared.take_given(&mut lent.left, &servers, start, wanted) {
            Some(Ok(slots)) => return Ok(Some(slots)),
            Some(Err(error)) => failure = Some(error),
            None => {}
        }
        let mut roomiest = None;
        let first = shared.rotation.load(Ordering::Relaxed);
        for step in 0..servers.len() {
            let server = (first + step) % servers.len();
            if !servers[server].serves() || !lent.all.servers.contains(&servers[server].dialer.address) {
                continue;
            }
            match shared.reserve(&servers, server, start, wanted) {
                Ok(slots) => return Ok(Some(slots)),
                Err(FarError::Full { free_pages, .. }) => {
                    roomiest = roomiest.max(Some((free_pages.min(u64::from(wanted)) as u32, server)));
                }
                Err(error) => failure = Some(error),
            }
        }
        if let Some((pages @ 1.., server)) = roomiest {
            match shared.reserve(&servers, server, start, pages) {
                Ok(slots) => return Ok(Some(slots)),
                Err(FarError::Full { .. }) => {}
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// What is known of each server.
    pub fn servers(&self) -> Vec<ServerStatus> {
        let status = |server: &Arc<Server>| ServerStatus {
            address: server.address(),
            reserved_pages: server.reserved.load(Ordering::Relaxed),
            used_pages: server.used.load(Ordering::Relaxed),
            state: server.state(),
        };
        self.shared.table().servers.iter().filter(|server| !server.has_left()).map(status).collect()
    }

    /// The slots on servers that are lost.
    pub fn lost(&self) -> Vec<Range<u32>> {
        let table = self.shared.table();
        let servers = table.servers.iter().enumerate().filter(|(_, server)| server.is_lost());
        servers.flat_map(|(index, _)| table.rmc.ranges(index).collect::<Vec<_>>()).collect()
    }

    /// Frees every segment on every server that can be reached, and empties those that were given. Ports must not be used afterwards.
    pub fn destroy(&self) {
        let table = self.shared.table().clone();
        for (index, server) in table.servers.iter().enumerate().filter(|(_, server)| server.serves()) {
            let of = |extent: &&Arc<Extent>| extent.server == index && !extent.is_gone();
            for extent in table.extents.iter().filter(of) {
                let Err(error) = server.free(extent) else { continue };
                tracing::warn!(%error, "segments were not freed; their server frees them after the lease");
                // A server that cannot be reached for one segment is not asked about the next.
                if !matches!(error, FarError::Server { .. }) {
                    break;
                }
            }
        }
    }
}

impl Shared {
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the table, and of which generation it is at least.
    pub(crate) fn table_now(&self) -> (Table, u64) {
        let table = self.table();
        (table.clone(), self.generation.load(Ordering::Acquire))
    }

    /// A port's descriptor that is to be rung when a server is lost.
    pub(crate) fn add_bell(&self, bell: &Arc<Bell>) {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        bells.retain(|bell| bell.strong_count() > 0);
        bells.push(Arc::downgrade(bell));
    }

    /// Declares a server lost, for all ports.
    pub(crate) fn lose(&self, server: &Server, reason: &str) {
        if !server.lose(reason) {
            return;
        }
        tracing::error!(server = %server.dialer.address, reason, "memory server lost");
        self.ring();
    }

    /// Wakes all ports.
    pub(crate) fn ring(&self) {
        self.ports().iter().for_each(|bell| bell.ring());
    }

    /// Of all ports that there are.
    pub(crate) fn ports(&self) -> Vec<Arc<Bell>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }

    fn reserve(
        &self,
        servers: &[Arc<Server>],
        server: usize,
        start: u32,
        pages: u32,
    ) -> Result<Range<u32>, FarError> {
        let number = self.table().extents.len();
        let name = format!("{}.{number}", self.config.name);
        let extent = servers[server].segment_create(server, &name, (start, pages), self.config.lease)?;
        self.rotation.store((server + 1) % servers.len(), Ordering::Relaxed);
        Ok(self.add(extent))
    }

    /// Puts servers behind all others; ports dial them when they look next, which is now.
    pub(crate) fn join(&self, servers: Vec<Arc<Server>>) {
        if servers.is_empty() {
            return;
        }
        let mut table = self.table();
        table.servers.extend(servers);
        self.generation.fetch_add(1, Ordering::Release);
        drop(table);
        self.ring();
    }

    /// Puts an extent behind all others; its slots.
    pub(crate) fn add(&self, extent: Extent) -> Range<u32> {
        let slots = extent.start..extent.start + extent.pages;
        let mut table = self.table();
        table.rmc.add(extent.entry()).expect("extents follow each other without overlap");
        table.extents.push(Arc::new(extent));
        self.generation.fetch_add(1, Ordering::Release);
        slots
    }
}

/// Wakes a port that sleeps: an eventfd, and a flag so that nobody has to read it when it was not rung. And what the port says
/// back.
pub(crate) struct Bell {
    fd: OwnedFd,
    rung: AtomicBool,
    /// The generation up to which the port asks nothing more of what was shed.
    pub(crate) settled: AtomicU64,
}

impl Bell {
    pub(crate) fn new() -> std::io::Result<Self> {
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd, rung: AtomicBool::new(false), settled: AtomicU64::new(0) })
    }

    pub(crate) fn ring(&self) {
        // It can only fail when the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        self.rung.store(true, Ordering::Release);
    }

    /// Makes it silent again. A ring that comes in between is heard next time.
    pub(crate) fn hush(&self) {
        if self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::AcqRel) {
            let _ = rustix::io::read(&self.fd, &mut [0u8; 8][..]);
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
