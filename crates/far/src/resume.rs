//! Far memory that goes on where another client of the same owner ended: a pager that takes over from a dead one.
//!
//! What the servers still hold is opened with the owner's token, within the lease. What they do not (a server that was
//! restarted or cannot be reached, a lease that is over) is on a lost server from the beginning: it is reported as lost like
//! that of a server that is lost later, never as absent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rackmem_types::{ServerAddress, Slot};

use crate::config::FarConfig;
use crate::dial::Dialer;
use crate::error::FarError;
use crate::given;
use crate::lend::Lending;
use crate::memory::{FarMemory, Table};
use crate::rmc::NetPort;
use crate::server::{Extent, Server};

/// Pause between two attempts to reach a server.
const PAUSE: Duration = Duration::from_millis(100);

/// What has to be known of an extent to open it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtentRecord {
    /// Where it is.
    pub server: ServerAddress,
    /// The server's epoch when it was reserved.
    pub epoch: u64,
    /// The segment.
    pub segment: u64,
    /// Who owns it.
    pub owner: [u8; 16],
    /// The first slot.
    pub start: u32,
    /// How many slots.
    pub pages: u32,
    /// The page of the segment that the first slot is.
    pub first: u64,
    /// Whether somebody else made the segment, and keeps it.
    pub given: bool,
    /// Whether it was shed. Only its slots count: they are not used again.
    pub gone: bool,
}

impl Table {
    /// All extents, in the order of their slots.
    pub(crate) fn records(&self) -> Vec<ExtentRecord> {
        let record = |(entry, extent): (&NetPort, &Arc<Extent>)| {
            let server = &self.servers[extent.server];
            ExtentRecord {
                server: server.address(),
                epoch: server.epoch,
                segment: extent.segment,
                owner: extent.owner.0,
                start: entry.start,
                pages: entry.end - entry.start,
                first: extent.first,
                given: extent.given,
                gone: extent.is_gone(),
            }
        };
        self.rmc.entries().iter().zip(&self.extents).map(record).collect()
    }
}

impl FarMemory {
    /// All extents, in the order of their slots.
    pub fn extents(&self) -> Vec<ExtentRecord> {
        self.shared.table().records()
    }

    /// As [`FarMemory::connect`], with the extents that another client left. Servers are waited for as long as a lost connection
    /// would be; fails only if none can be used, or the credentials are wrong. [`FarMemory::lost`] tells what is lost.
    pub fn resume(config: FarConfig, records: &[ExtentRecord]) -> Result<Self, FarError> {
        let mut addresses = Lending::of(&config).addresses();
        addresses.extend(records.iter().filter(|record| !record.gone).map(|record| record.server.clone()));
        let mut known = Vec::new();
        addresses.retain(|address| {
            !known.contains(address) && {
                known.push(address.clone());
                true
            }
        });
        let patience = Instant::now() + config.lost_after;
        let mut servers = Vec::new();
        let mut failures = Vec::new();
        for address in addresses {
            let dialer = Dialer::new(address, &config.credentials)?;
            match reach(&dialer, patience) {
                Ok(server) => servers.push(Arc::new(server)),
                Err(error) if is_passing(&error) => failures.push((dialer.address, error)),
                Err(error) => return Err(error),
            }
        }
        if servers.is_empty() {
            return Err(failures.into_iter().next().map_or(FarError::NoServers, |(_, error)| error));
        }
        let mut records: Vec<&ExtentRecord> = records.iter().collect();
        records.sort_by_key(|record| record.start);
        let mut table = Table::default();
        for &record in &records {
            let opened =
                if record.gone { Ok(Extent::lost(0, record)) } else { open(&servers, record, &failures) };
            let extent = match opened {
                Ok(extent) => extent,
                Err(reason) => {
                    let dialer = Dialer::new(record.server.clone(), &config.credentials)?;
                    Extent::lost(ghost(&mut servers, dialer, record.epoch, &reason), record)
                }
            };
            if table.rmc.add(extent.entry()).is_ok() {
                table.extents.push(Arc::new(extent));
            }
        }
        // What the other client had not begun with, it may not have emptied.
        for part in config.given.iter().filter(|part| !records.iter().any(|record| part.has(record))) {
            if let Err(error) = given::empty(std::slice::from_ref(part), &servers) {
                tracing::warn!(%error, "a segment that was given cannot be used");
            }
        }
        table.servers = servers;
        Ok(Self::new(config, table))
    }

    /// These slots have content, stored by another client.
    pub fn note_stored(&self, slots: impl Iterator<Item = Slot>) {
        let table = self.shared.table();
        for slot in slots {
            let Some(extent) = table.rmc.entry(slot).map(|index| &table.extents[index]) else { continue };
            if extent.note_stored(slot) {
                table.servers[extent.server].used.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// A failure that may go by: the server is not there just now. All others are for the user to mend.
fn is_passing(error: &FarError) -> bool {
    matches!(
        error,
        FarError::UnknownHost { .. }
            | FarError::Refused { .. }
            | FarError::Timeout { .. }
            | FarError::Closed { .. }
            | FarError::Io { .. }
    )
}

fn reach(dialer: &Dialer, patience: Instant) -> Result<Server, FarError> {
    loop {
        match Server::connect(dialer.clone()) {
            Err(error) if is_passing(&error) && Instant::now() + PAUSE < patience => thread::sleep(PAUSE),
            result => return result,
        }
    }
}

fn open(
    servers: &[Arc<Server>],
    record: &ExtentRecord,
    failures: &[(ServerAddress, FarError)],
) -> Result<Extent, String> {
    let found = servers.iter().position(|server| server.address() == record.server && !server.is_lost());
    let Some(index) = found else {
        let failure = failures.iter().find(|(address, _)| *address == record.server);
        return Err(failure.map_or_else(String::new, |(_, error)| error.to_string()));
    };
    if servers[index].epoch != record.epoch {
        return Err(FarError::Restarted { address: record.server.clone() }.to_string());
    }
    servers[index].segment_resume(index, record).map_err(|error| error.to_string())
}

/// The lost server for what was on `dialer`'s.
fn ghost(servers: &mut Vec<Arc<Server>>, dialer: Dialer, epoch: u64, reason: &str) -> usize {
    let same = |server: &Arc<Server>| {
        server.is_lost() && server.address() == dialer.address && server.epoch == epoch
    };
    servers.iter().position(same).unwrap_or_else(|| {
        servers.push(Arc::new(Server::lost(dialer, epoch, reason)));
        servers.len() - 1
    })
}
