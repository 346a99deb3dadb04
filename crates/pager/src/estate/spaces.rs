//! The spaces as the estate keeps them, and the ranges that are registered in each.
//!
//! The ranges are written as a whole into one of two places, and one word says which of them counts.

use std::ops::Range;

use super::{AREAS, Estate, SPACES};
use crate::ranges::RangeSet;
use crate::space::Space;
use crate::table::SpaceId;

/// Address spaces at most that outlive a pager; those above are served all the same.
pub(super) const SPACES_MAX: usize = 4096;
const RECORD_BYTES: usize = 256;
/// Two lists of ranges and a row of messages.
pub(super) const AREA_BYTES: usize = 2 << 20;
/// Half of what a process may have of mappings by default. Beyond that a successor asks the kernel what is registered.
const RANGES_MAX: usize = (512 << 10) / 16;
/// Messages that were read.
pub(super) const EVENTS_BYTES: usize = 256 << 10;

const _: () = assert!(SPACES + SPACES_MAX * RECORD_BYTES <= AREAS);

const STATE: usize = 0;
const PID: usize = 8;
const THREAD: usize = 16;
const RING: usize = 24;
const CODE: usize = 32;
const UFFD: usize = 40;
const STAGING: usize = 48;
const BADGE_ADDRESS: usize = 56;
const BADGE: usize = 64;
const DISCARDS: usize = 72;
const REGIONS: usize = 80;
const HEAD: usize = 88;

/// `REGIONS`: too many to be written.
const UNKNOWN: u64 = u64::MAX;

/// How far a space is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpaceState {
    /// A forked child whose pages are still being inherited.
    Making = 1,
    /// In use.
    Live = 2,
}

/// What a successor must know of a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpaceRecord {
    pub(crate) state: SpaceState,
    pub(crate) badge_address: u64,
    /// The serial number of a forked child.
    pub(crate) badge: u64,
    pub(crate) discards: bool,
    pub(crate) inside: Option<InsideRecord>,
}

/// What lives inside a process that has been entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InsideRecord {
    pub(crate) pid: u32,
    pub(crate) thread: u32,
    /// Addresses of the ring and of the code.
    pub(crate) ring: u64,
    pub(crate) code: u64,
    /// The userfaultfd's number in the resident thread's table.
    pub(crate) uffd: i32,
    pub(crate) staging: u64,
}

fn record_at(id: SpaceId) -> Option<usize> {
    (usize::from(id) < SPACES_MAX).then(|| SPACES + usize::from(id) * RECORD_BYTES)
}

fn regions_at(id: SpaceId, which: u64) -> usize {
    AREAS + usize::from(id) * AREA_BYTES + (which as usize & 1) * RANGES_MAX * 16
}

pub(super) fn events_at(id: SpaceId) -> usize {
    AREAS + usize::from(id) * AREA_BYTES + 2 * RANGES_MAX * 16
}

impl Estate {
    /// Notes a space that is new, or has been entered. `false`: it will not outlive the pager.
    pub(crate) fn space_note(&mut self, id: SpaceId, space: &Space, state: SpaceState) -> bool {
        let Some(at) = record_at(id) else { return false };
        if let Some(inside) = &space.inside {
            let (ring, code) = inside.resident.addresses();
            self.put(at + RING, ring);
            self.put(at + CODE, code);
            self.put(at + UFFD, inside.uffd as u64);
            self.put(at + STAGING, inside.staging);
            self.put(at + PID, inside.resident.pid().into());
        }
        self.put(at + BADGE_ADDRESS, space.badge_address);
        self.put(at + BADGE, space.badge);
        self.put(at + DISCARDS, space.discards.into());
        self.regions_note(id, &space.regions);
        // The userfaultfd of one that has been entered is its thread's; of all others it lies in the drawer.
        let thread = space.inside.as_ref().map_or(0, |inside| inside.resident.thread());
        self.put(at + THREAD, thread.into());
        self.put(at + STATE, state as u64);
        true
    }

    pub(crate) fn space_state(&mut self, id: SpaceId, state: SpaceState) {
        if let Some(at) = record_at(id) {
            self.put(at + STATE, state as u64);
        }
    }

    /// The space is gone.
    pub(crate) fn space_forget(&mut self, id: SpaceId) {
        if let Some(at) = record_at(id) {
            self.events_clear(id);
            self.put(at + STATE, 0);
            self.put(at + REGIONS, 0);
        }
    }

    pub(crate) fn discards_note(&mut self, id: SpaceId) {
        if let Some(at) = record_at(id) {
            self.put(at + DISCARDS, 1);
        }
    }

    /// The registered ranges have changed.
    pub(crate) fn regions_note(&mut self, id: SpaceId, regions: &RangeSet) {
        let Some(at) = record_at(id) else { return };
        let which = !self.get(at + REGIONS) & 1;
        let list = regions_at(id, which);
        let mut count = 0;
        for range in regions.iter() {
            if count as usize == RANGES_MAX {
                return self.put(at + REGIONS, UNKNOWN);
            }
            self.put(list + count as usize * 16, range.start);
            self.put(list + count as usize * 16 + 8, range.end);
            count += 1;
        }
        self.put(at + REGIONS, count << 1 | which);
    }

    /// The registered ranges. `None`: they are not known.
    pub(crate) fn regions(&self, id: SpaceId) -> Option<Vec<Range<u64>>> {
        let word = self.get(record_at(id)? + REGIONS);
        let (list, count) = (regions_at(id, word), (word >> 1) as usize);
        let range = |i: usize| self.get(list + i * 16)..self.get(list + i * 16 + 8);
        (count <= RANGES_MAX).then(|| (0..count).map(range).collect())
    }

    /// All spaces.
    pub(crate) fn spaces(&self) -> Vec<(SpaceId, SpaceRecord)> {
        (0..SPACES_MAX as SpaceId).filter_map(|id| Some((id, self.space(id)?))).collect()
    }

    pub(super) fn is_space(&self, id: SpaceId) -> bool {
        record_at(id).is_some_and(|at| self.get(at + STATE) != 0)
    }

    fn space(&self, id: SpaceId) -> Option<SpaceRecord> {
        let at = record_at(id)?;
        let word = |offset: usize| self.get(at + offset);
        let state = match word(STATE) {
            0 => return None,
            1 => SpaceState::Making,
            _ => SpaceState::Live,
        };
        let inside = (word(THREAD) != 0).then(|| InsideRecord {
            pid: word(PID) as u32,
            thread: word(THREAD) as u32,
            ring: word(RING),
            code: word(CODE),
            uffd: word(UFFD) as i32,
            staging: word(STAGING),
        });
        Some(SpaceRecord {
            state,
            badge_address: word(BADGE_ADDRESS),
            badge: word(BADGE),
            discards: word(DISCARDS) != 0,
            inside,
        })
    }

    pub(super) fn head_put(&mut self, id: SpaceId, head: usize) {
        if let Some(at) = record_at(id) {
            self.put(at + HEAD, head as u64);
        }
    }

    pub(super) fn head_get(&self, id: SpaceId) -> usize {
        record_at(id).map_or(0, |at| self.get(at + HEAD) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_list_of_ranges_counts() {
        let mut estate = Estate::new().unwrap();
        let mut regions = RangeSet::default();
        assert_eq!(estate.regions(5), Some(Vec::new()));
        for start in [0x1000, 0x9000, 0x5000] {
            regions.insert(start..start + 0x1000);
            estate.regions_note(5, &regions);
            assert_eq!(estate.regions(5).unwrap(), regions.iter().collect::<Vec<_>>());
        }
        (0..RANGES_MAX as u64).for_each(|i| regions.insert(0x10_0000 + i * 0x2000..0x10_1000 + i * 0x2000));
        estate.regions_note(5, &regions);
        assert_eq!(estate.regions(5), None, "too many");
        assert_eq!(estate.regions(SPACES_MAX as SpaceId), None);
    }

    #[test]
    fn spaces_come_and_go() {
        let mut estate = Estate::new().unwrap();
        estate.space_state(7, SpaceState::Making);
        assert_eq!(estate.spaces().len(), 1);
        assert_eq!(estate.spaces()[0].1.state, SpaceState::Making);
        estate.space_forget(7);
        assert_eq!(estate.spaces(), []);
    }
}
