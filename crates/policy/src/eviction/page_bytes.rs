//! One byte for each page reference ever seen: where the page is, how often it proved useful, and how many of its
//! queue entries are dead. It knows nothing of queues beyond their names.

use super::PageRef;

/// Where a page is, as the policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Unknown, or forgotten.
    Nowhere,
    /// Resident, on probation.
    Small,
    /// Resident, with proof of re-use.
    Main,
    /// Evicted not long ago.
    Ghost,
}

/// The bytes. Layout: bits 0–1 frequency, 2–3 place, 4–5 dead entries in small, 6 in main, 7 in ghost.
#[derive(Debug, Default)]
pub(super) struct PageBytes(Vec<u8>);

/// References come in chunks of this many pages, so the vector grows by whole chunks.
const CHUNK: usize = 512;

impl PageBytes {
    /// Makes room for `page`.
    pub(super) fn reach(&mut self, page: PageRef) {
        let index = page.0 as usize;
        if index >= self.0.len() {
            self.0.resize((index / CHUNK + 1) * CHUNK, 0);
        }
    }

    pub(super) fn place(&self, page: PageRef) -> Place {
        match self.0.get(page.0 as usize).map_or(0, |byte| byte >> 2 & 3) {
            0 => Place::Nowhere,
            1 => Place::Small,
            2 => Place::Main,
            _ => Place::Ghost,
        }
    }

    pub(super) fn place_set(&mut self, page: PageRef, place: Place) {
        let bits = match place {
            Place::Nowhere => 0,
            Place::Small => 1,
            Place::Main => 2,
            Place::Ghost => 3,
        };
        let byte = &mut self.0[page.0 as usize];
        *byte = *byte & !(3 << 2) | bits << 2;
    }

    /// How many rounds of the main queue the page survives, 0 to 3.
    pub(super) fn frequency(&self, page: PageRef) -> u8 {
        self.0[page.0 as usize] & 3
    }

    pub(super) fn frequency_set(&mut self, page: PageRef, frequency: u8) {
        let byte = &mut self.0[page.0 as usize];
        *byte = *byte & !3 | frequency.min(3);
    }

    /// Entries of `page` in the queue of `place` that mean nothing any more; they lie before a live one.
    pub(super) fn dead(&self, page: PageRef, place: Place) -> u8 {
        let (shift, max) = dead_bits(place);
        self.0[page.0 as usize] >> shift & max
    }

    /// Sets the dead entries, which must not exceed [`dead_max`].
    pub(super) fn dead_set(&mut self, page: PageRef, place: Place, dead: u8) {
        let (shift, max) = dead_bits(place);
        assert!(dead <= max, "{dead} dead entries of {page:?} do not fit");
        let byte = &mut self.0[page.0 as usize];
        *byte = *byte & !(max << shift) | dead << shift;
    }
}

/// The most dead entries that a page may have in the queue of `place`.
pub(super) fn dead_max(place: Place) -> u8 {
    dead_bits(place).1
}

fn dead_bits(place: Place) -> (u32, u8) {
    match place {
        Place::Small => (4, 3),
        Place::Main => (6, 1),
        Place::Ghost => (7, 1),
        Place::Nowhere => unreachable!("there is no queue of pages that are nowhere"),
    }
}
