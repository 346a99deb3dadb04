//! What a far memory may use, which can change while it is in use: servers, segments and capacity come, and go once what lies on
//! them has been moved.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rackmem_types::ServerAddress;

use crate::config::{FarConfig, GivenSegment};
use crate::dial::Dialer;
use crate::error::FarError;
use crate::given;
use crate::memory::{Bell, FarMemory, Shared, Table};
use crate::resume::ExtentRecord;
use crate::server::{Extent, Server};

/// How often it is looked whether ports have their answers.
const LOOK: Duration = Duration::from_millis(1);

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
    /// Parts that were emptied for us, and in which pages may lie.
    known: Vec<GivenSegment>,
    /// Slots that lie on what may not be used any more, and are to be shed.
    pub(crate) going: Vec<Range<u32>>,
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

    /// The parts that are not in `known`. None of them touches one that is: that could not be emptied.
    fn fresh(&self, known: &[GivenSegment]) -> Result<Vec<GivenSegment>, FarError> {
        let fresh: Vec<_> = self.given.iter().filter(|part| !known.contains(part)).cloned().collect();
        for part in &fresh {
            let touches = |known: &&GivenSegment| {
                (&known.server, known.segment) == (&part.server, part.segment)
                    && known.first < part.first.saturating_add(part.pages)
                    && part.first < known.first.saturating_add(known.pages)
            };
            if known.iter().any(|known| touches(&known)) {
                return Err(FarError::InUse { address: part.server.clone(), segment: part.segment });
            }
        }
        Ok(fresh)
    }

    /// The extents that lie in nothing of this, or are more than its capacity.
    fn surplus<'a>(&self, records: &'a [ExtentRecord]) -> Vec<&'a ExtentRecord> {
        let mut held = 0u64;
        let goes = |record: &&ExtentRecord| {
            let more = held + u64::from(record.pages);
            let stays = self.covers(record) && self.capacity_pages.is_none_or(|most| more <= most.into());
            held = if stays { more } else { held };
            !stays
        };
        records.iter().filter(goes).collect()
    }
}

impl Lent {
    pub(crate) fn new(all: Lending, in_use: &[ExtentRecord]) -> Self {
        let left = given::left(&all.given, in_use);
        Self { known: all.given.clone(), going: Vec::new(), all, left }
    }
}

impl FarMemory {
    /// All that may be used now.
    pub fn lending(&self) -> Lending {
        self.shared.lent.lock().unwrap_or_else(PoisonError::into_inner).all.clone()
    }

    /// From now on exactly this may be used. Servers that are new are dialled, and segments that are new emptied, before anything
    /// changes; nothing changes if one cannot be.
    ///
    /// Gives the slots that lie on what is not named any more. What they hold stays there, and can be read and stored, until
    /// it has been moved and they are shed ([`FarMemory::shed`]), or what they lie on is named again.
    pub fn lend(&self, lending: Lending) -> Result<Vec<Range<u32>>, FarError> {
        let shared = &self.shared;
        let mut lent = shared.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let table = shared.table().clone();
        // By the server that an extent lies on, not by its address: one that was left and joined again is there twice.
        let is_there = |extent: &Arc<Extent>| !extent.is_gone() && table.servers[extent.server].serves();
        let extents = table.records().into_iter().zip(&table.extents);
        let records: Vec<_> =
            extents.filter(|(_, extent)| is_there(extent)).map(|(record, _)| record).collect();
        // A part that has been given and is in use has pages, whatever was said of it since, be it to a predecessor.
        let is_used = |part: &GivenSegment| records.iter().any(|record| part.has(record));
        let all = &lent.all.given;
        let known: Vec<_> =
            lent.known.iter().filter(|part| all.contains(part) || is_used(part)).cloned().collect();
        let fresh = lending.fresh(&known)?;
        let addresses = lending.addresses();
        if addresses.is_empty() {
            return Err(FarError::NoServers);
        }
        let is_known = |address: &ServerAddress| {
            table.servers.iter().any(|server| server.dialer.address == *address && server.serves())
        };
        let mut joining = Vec::new();
        for address in addresses.into_iter().filter(|address| !is_known(address)) {
            let dialer = Dialer::new(address, &shared.config.credentials)?;
            joining.push(Arc::new(Server::connect(dialer)?));
        }
        let servers: Vec<_> = table.servers.iter().chain(&joining).cloned().collect();
        let unused: Vec<_> = fresh.iter().filter(|part| !is_used(part)).cloned().collect();
        given::empty(&unused, &servers)?;
        shared.join(joining);
        let surplus =
            lending.surplus(&records).into_iter().map(|record| record.start..record.start + record.pages);
        let surplus: Vec<_> = surplus.collect();
        let known = known.into_iter().chain(fresh).collect();
        *lent = Lent { known, going: surplus.clone(), ..Lent::new(lending, &records) };
        shared.leave_unused(&lent.all);
        Ok(surplus)
    }

    /// Nothing lies on these slots, each an extent, any more: nothing is asked of them from now on. Waits until all ports have
    /// their answers for what they asked before, which they have soon, or the server is lost. `false`: one did not say so; then
    /// nothing must be given back, for a server that is asked for what it has freed counts as lost.
    #[must_use]
    pub fn shed(&self, slots: &[Range<u32>]) -> bool {
        let shared = &self.shared;
        let generation = {
            let table = shared.table();
            table.extents.iter().filter(|extent| is_of(extent, slots)).for_each(|extent| extent.shed());
            shared.generation.fetch_add(1, Ordering::AcqRel) + 1
        };
        let until = Instant::now() + 2 * shared.config.lost_after;
        let settled = |bell: &Arc<Bell>| bell.settled.load(Ordering::Acquire) >= generation;
        loop {
            if shared.ports().iter().all(settled) {
                return true;
            }
            if Instant::now() > until {
                return false;
            }
            shared.ring();
            std::thread::sleep(LOOK);
        }
    }

    /// Frees what was shed on its server; what cannot be is freed after the lease.
    pub fn give_back(&self, slots: &[Range<u32>]) {
        let table = self.shared.table().clone();
        for extent in table.extents.iter().filter(|extent| is_of(extent, slots)) {
            let server = &table.servers[extent.server];
            if !server.serves() {
                continue;
            }
            server.note_freed(extent);
            if let Err(error) = server.free(extent) {
                tracing::warn!(%error, "a segment was not freed; its server frees it after the lease");
            }
        }
        let lent = self.shared.lent.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.leave_unused(&lent.all);
    }
}

impl Shared {
    /// Lets go of the servers that `lending` does not name and that have nothing of ours: their end is no loss.
    fn leave_unused(&self, lending: &Lending) {
        let Table { extents, servers, .. } = self.table().clone();
        let addresses = lending.addresses();
        let is_used = |index: usize| extents.iter().any(|extent| extent.server == index && !extent.is_gone());
        for (index, server) in servers.iter().enumerate() {
            if server.serves() && !addresses.contains(&server.dialer.address) && !is_used(index) {
                server.leave();
                self.ring();
            }
        }
    }
}

fn is_of(extent: &Extent, slots: &[Range<u32>]) -> bool {
    slots.iter().any(|range| range.start == extent.start)
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
        ExtentRecord {
            server,
            epoch: 1,
            segment,
            owner: [1; 16],
            start: 0,
            pages: 10,
            first,
            given,
            gone: false,
        }
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
    fn what_goes_is_what_is_not_named_and_the_last_of_what_is_too_much() {
        let extents = [extent(1, 0, true), extent(2, 0, true), extent(1, 10, true), extent(1, 20, true)];
        let mut lends = lending(&[part(1, 0, 30)]);
        assert_eq!(lends.surplus(&extents), [&extents[1]]);
        lends.capacity_pages = Some(25);
        assert_eq!(lends.surplus(&extents), [&extents[1], &extents[3]]);
    }

    #[test]
    fn what_is_new_touches_nothing_that_was_there() {
        let before = lending(&[part(1, 0, 100)]);
        let more = lending(&[part(1, 0, 100), part(1, 100, 10), part(2, 0, 10)]);
        assert_eq!(more.fresh(&before.given).unwrap(), &more.given[1..]);
        assert_eq!(before.fresh(&more.given).unwrap(), []);
        for wrong in [part(1, 0, 200), part(1, 99, 1)] {
            assert!(matches!(
                lending(&[wrong]).fresh(&before.given),
                Err(FarError::InUse { segment: 1, .. })
            ));
        }
    }
}
