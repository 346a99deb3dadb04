//! The remote memory controller's table (D4.1, Appendix I): which server and which page of which segment a slot is.
//!
//! Pure: it translates and refuses overlaps. It never talks to a server and knows nothing of what a page holds.

use std::ops::Range;

use rackmem_types::Slot;

/// One NetPort entry: a range of the target's far space, where it lives, and the offset that translates it.
///
/// D4.1 keeps `(network address, start, end, offset)`, 4 bytes each, and the network address' top bit says whether the
/// offset is added or subtracted. Here the network address is server and segment, and the offset has a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetPort {
    /// Index of the memory server.
    pub server: usize,
    /// Segment on that server.
    pub segment: u64,
    /// First slot.
    pub start: u32,
    /// One behind the last slot.
    pub end: u32,
    /// Added to a slot it gives the page in the segment.
    pub offset: i64,
}

/// Where a slot lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the memory server.
    pub server: usize,
    /// Segment on that server.
    pub segment: u64,
    /// Page in that segment.
    pub page: u64,
}

/// The table refuses an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RmcError {
    /// The range has no slots.
    #[error("the range {start}..{end} has no slots")]
    Empty {
        /// First slot.
        start: u32,
        /// One behind the last slot.
        end: u32,
    },
    /// The offset leads below page 0.
    #[error("slot {start} with offset {offset} lies below page 0 of its segment")]
    Offset {
        /// First slot.
        start: u32,
        /// The offset.
        offset: i64,
    },
    /// Another entry has some of the slots.
    #[error("the range {start}..{end} overlaps an entry that is there")]
    Overlap {
        /// First slot.
        start: u32,
        /// One behind the last slot.
        end: u32,
    },
}

/// The table, sorted by start.
#[derive(Clone, Debug, Default)]
pub struct Rmc {
    entries: Vec<NetPort>,
}

impl Rmc {
    /// Adds an entry; refuses empty ranges, overlaps and offsets below page 0.
    pub fn add(&mut self, entry: NetPort) -> Result<(), RmcError> {
        let NetPort { start, end, offset, .. } = entry;
        if start >= end {
            return Err(RmcError::Empty { start, end });
        }
        if i64::from(start).checked_add(offset).is_none_or(|page| page < 0) {
            return Err(RmcError::Offset { start, offset });
        }
        let place = self.entries.partition_point(|other| other.start < start);
        let overlaps_next = self.entries.get(place).is_some_and(|next| next.start < end);
        let overlaps_previous = place > 0 && self.entries[place - 1].end > start;
        if overlaps_next || overlaps_previous {
            return Err(RmcError::Overlap { start, end });
        }
        self.entries.insert(place, entry);
        Ok(())
    }

    /// Removes all entries of a server and gives their ranges.
    pub fn remove_server(&mut self, server: usize) -> Vec<Range<u32>> {
        let ranges = self.ranges(server).collect();
        self.entries.retain(|entry| entry.server != server);
        ranges
    }

    /// Where `slot` lives.
    pub fn translate(&self, slot: Slot) -> Option<Place> {
        self.entry(slot).map(|entry| self.entries[entry]).map(|entry| Place {
            server: entry.server,
            segment: entry.segment,
            page: (i64::from(slot.0) + entry.offset) as u64,
        })
    }

    /// Index of the entry that holds `slot`, in the order of [`Rmc::entries`].
    pub fn entry(&self, slot: Slot) -> Option<usize> {
        let index = self.entries.partition_point(|entry| entry.start <= slot.0).checked_sub(1)?;
        (slot.0 < self.entries[index].end).then_some(index)
    }

    /// All entries, sorted by start.
    pub fn entries(&self) -> &[NetPort] {
        &self.entries
    }

    /// The slot ranges of one server.
    pub fn ranges(&self, server: usize) -> impl Iterator<Item = Range<u32>> {
        self.entries.iter().filter(move |entry| entry.server == server).map(|entry| entry.start..entry.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn port(server: usize, slots: Range<u32>, offset: i64) -> NetPort {
        NetPort { server, segment: 7, start: slots.start, end: slots.end, offset }
    }

    #[test]
    fn refuses_what_cannot_be() {
        let mut rmc = Rmc::default();
        assert_eq!(rmc.add(port(0, 5..5, 0)), Err(RmcError::Empty { start: 5, end: 5 }));
        assert_eq!(rmc.add(port(0, 5..9, -6)), Err(RmcError::Offset { start: 5, offset: -6 }));
        assert_eq!(rmc.add(port(0, 5..9, -5)), Ok(()));
        assert_eq!(rmc.add(port(1, 8..12, 0)), Err(RmcError::Overlap { start: 8, end: 12 }));
        assert_eq!(rmc.add(port(1, 9..12, 0)), Ok(()));
        assert_eq!(rmc.remove_server(0).first(), Some(&(5..9)));
        assert_eq!(rmc.translate(Slot(6)), None);
    }

    proptest! {
        /// The model is one cell per slot.
        #[test]
        fn translates_like_one_cell_per_slot(
            ports in prop::collection::vec((0usize..3, 0u32..60, 0u32..12, -10i64..100), 1..20),
        ) {
            let mut rmc = Rmc::default();
            let mut cells = [None; 80];
            for (server, start, len, offset) in ports {
                let slots = start as usize..(start + len) as usize;
                let possible = len > 0
                    && i64::from(start) + offset >= 0
                    && cells[slots.clone()].iter().all(Option::is_none);
                prop_assert_eq!(rmc.add(port(server, start..start + len, offset)).is_ok(), possible);
                if possible {
                    for slot in slots {
                        cells[slot] = Some(Place { server, segment: 7, page: (slot as i64 + offset) as u64 });
                    }
                }
            }
            for (slot, cell) in cells.iter().enumerate() {
                prop_assert_eq!(rmc.translate(Slot(slot as u32)), *cell);
            }
        }
    }
}
