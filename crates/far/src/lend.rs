//! What a far memory may use, which can change while it is in use: servers, segments and capacity come, and go while nothing
//! lies on them.

use std::sync::{Arc, PoisonError};

use rackmem_types::ServerAddress;

use crate::config::{FarConfig, GivenSegment};
use crate::dial::Dialer;
use crate::error::FarError;
use crate::given;
use crate::memory::FarMemory;
use crate::resume::ExtentRecord;
use crate::server::Server;

/// All that may be used: a whole statement, so that it can be made again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lending {
    /// The servers on which segments may be reserved.
    pub servers: Vec<ServerAddress>,
    /// Segments that somebody else made.
    pub given: Vec<GivenSegment>,
    /// At most this much far memory; `None`: as much as the servers give.
    pub capacity_pages: Option<u32>,
}

/// What may be used, and how much of what was given is not in use yet.
pub(crate) struct Lent {
    pub(crate) all: Lending,
    /// The next one last.
    pub(crate) left: Vec<GivenSegment>,
}

impl Lending {
    /// What `config` begins with.
    pub(crate) fn of(config: &FarConfig) -> Self {
        let FarConfig { servers, given, capacity_pages, .. } = config;
        Self { servers: servers.clone(), given: given.clone(), capacity_pages: *capacity_pages }
    }

    /// All servers that are spoken to: those that lend, and those that have a segment that was given.
    pub(crate) fn addresses(&self) -> Vec<ServerAddress> {
        let mut addresses = self.servers.clone();
        for given in &self.given {
            if !addresses.contains(&given.server) {
                addresses.push(given.server.clone());
            }
        }
        addresses
    }

    /// Whether an extent lies in what may be used.
    fn covers(&self, extent: &ExtentRecord) -> bool {
        let end = extent.first.saturating_add(extent.pages.into());
        let has = |given: &GivenSegment| {
            (&given.server, given.segment) == (&extent.server, extent.segment)
                && given.first <= extent.first
                && end <= given.first.saturating_add(given.pages)
        };
        if extent.given { self.given.iter().any(has) } else { self.servers.contains(&extent.server) }
    }

    /// The parts that `before` did not have. None of them touches one that it had: that could not be emptied.
    fn fresh(&self, before: &Self) -> Result<Vec<GivenSegment>, FarError> {
        let fresh: Vec<_> = self.given.iter().filter(|part| !before.given.contains(part)).cloned().collect();
        for part in &fresh {
            let touches = |known: &&GivenSegment| {
                (&known.server, known.segment) == (&part.server, part.segment)
                    && known.first < part.first.saturating_add(part.pages)
                    && part.first < known.first.saturating_add(known.pages)
            };
            if before.given.iter().any(|known| touches(&known)) {
                return Err(FarError::InUse { address: part.server.clone(), segment: part.segment });
            }
        }
        Ok(fresh)
    }
}

impl Lent {
    pub(crate) fn new(all: Lending, in_use: &[ExtentRecord]) -> Self {
        let left = given::left(&all.given, in_use);
        Self { all, left }
    }
}

impl FarMemory {
    /// From now on exactly this may be used. Servers that are new are dialled, and segments that are new emptied, before anything
    /// changes; nothing changes if one cannot be. Refused as in use where pages may lie on what is not named any more: only
    /// what no extent was taken of can go.
    pub fn lend(&self, lending: Lending) -> Result<(), FarError> {
        let shared = &self.shared;
        let mut lent = shared.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let (servers, records) = {
            let table = shared.table();
            let lives = |record: &ExtentRecord| {
                let of = |server: &&Arc<Server>| {
                    (&server.dialer.address, server.epoch) == (&record.server, record.epoch)
                };
                table.servers.iter().find(of).is_some_and(|server| !server.is_lost())
            };
            let mut records = table.records();
            records.retain(lives);
            (table.servers.clone(), records)
        };
        let mut held = 0u64;
        let goes = |record: &&ExtentRecord| {
            held += u64::from(record.pages);
            !lending.covers(record) || lending.capacity_pages.is_some_and(|most| held > most.into())
        };
        if let Some(record) = records.iter().find(goes) {
            return Err(FarError::InUse { address: record.server.clone(), segment: record.segment });
        }
        let fresh = lending.fresh(&lent.all)?;
        let addresses = lending.addresses();
        if addresses.is_empty() {
            return Err(FarError::NoServers);
        }
        let is_known = |address: &ServerAddress| {
            servers.iter().any(|server| server.dialer.address == *address && !server.is_lost())
        };
        let mut joining = Vec::new();
        for address in addresses.into_iter().filter(|address| !is_known(address)) {
            let dialer = Dialer::new(address, &shared.config.credentials)?;
            joining.push(Arc::new(Server::connect(dialer)?));
        }
        let all: Vec<_> = servers.into_iter().chain(joining.iter().cloned()).collect();
        given::empty(&fresh, &all)?;
        shared.join(joining);
        *lent = Lent::new(lending, &records);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(segment: u64, first: u64, pages: u64) -> GivenSegment {
        GivenSegment { server: "host:7".parse().unwrap(), segment, owner: [1; 16], first, pages }
    }

    fn lending(given: &[GivenSegment]) -> Lending {
        Lending { given: given.to_vec(), ..Lending::default() }
    }

    fn extent(segment: u64, first: u64, given: bool) -> ExtentRecord {
        let server = "host:7".parse().unwrap();
        ExtentRecord { server, epoch: 1, segment, owner: [1; 16], start: 0, pages: 10, first, given }
    }

    #[test]
    fn extents_lie_in_what_was_given_or_on_a_server_that_lends() {
        let mut lends = lending(&[part(1, 100, 50)]);
        assert!(lends.covers(&extent(1, 100, true)) && lends.covers(&extent(1, 140, true)));
        assert!(!lends.covers(&extent(1, 141, true)) && !lends.covers(&extent(2, 100, true)));
        assert!(!lends.covers(&extent(1, 100, false)), "it lends nothing itself");
        lends.servers.push("host:7".parse().unwrap());
        assert!(lends.covers(&extent(1, 100, false)));
    }

    #[test]
    fn what_is_new_touches_nothing_that_was_there() {
        let before = lending(&[part(1, 0, 100)]);
        let more = lending(&[part(1, 0, 100), part(1, 100, 10), part(2, 0, 10)]);
        assert_eq!(more.fresh(&before).unwrap(), &more.given[1..]);
        assert_eq!(before.fresh(&more).unwrap(), []);
        for wrong in [part(1, 0, 200), part(1, 99, 1)] {
            assert!(matches!(lending(&[wrong]).fresh(&before), Err(FarError::InUse { segment: 1, .. })));
        }
    }
}
