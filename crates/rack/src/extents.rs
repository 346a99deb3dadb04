//! Who owns which pages: of a memory brick's pool, and of a compute brick's far address space.
//!
//! It never lets two owners have one page.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::SegmentId;

/// Ranges of pages with their owners, below a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    limit: u64,
    used: u64,
    /// Start → (end, owner).
    owned: BTreeMap<u64, (u64, SegmentId)>,
}

impl Extents {
    /// Nothing owned of `limit` pages.
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Pages in all.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Pages that have an owner.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Every range with its owner, by start.
    pub fn iter(&self) -> impl Iterator<Item = (Range<u64>, SegmentId)> {
        self.owned.iter().map(|(&start, &(end, owner))| (start..end, owner))
    }

    /// How many ranges have an owner.
    pub fn count(&self) -> usize {
        self.owned.len()
    }

    /// Who owns a page of `range`: the first range that is in the way, or the limit if it lies beyond.
    pub(crate) fn obstacle(&self, range: &Range<u64>) -> Option<Obstacle> {
        if range.end > self.limit || range.start >= range.end {
            return Some(Obstacle::Limit(self.limit));
        }
        let before = self.owned.range(..range.end).next_back()?;
        (before.1.0 > range.start).then_some(Obstacle::Owner(before.1.1))
    }

    /// Gives `range` to `owner`, unless something is in the way.
    pub(crate) fn insert(&mut self, range: &Range<u64>, owner: SegmentId) -> Result<(), Obstacle> {
        if let Some(obstacle) = self.obstacle(range) {
            return Err(obstacle);
        }
        self.used += range.end - range.start;
        self.owned.insert(range.start, (range.end, owner));
        Ok(())
    }

    /// Whether the range that starts at `start` is `owner`'s.
    pub(crate) fn owns(&self, start: u64, owner: SegmentId) -> bool {
        self.owned.get(&start).is_some_and(|(_, held_by)| *held_by == owner)
    }

    /// Takes the range that starts at `start` back from `owner`; nothing happens if it is not theirs.
    pub(crate) fn remove(&mut self, start: u64, owner: SegmentId) {
        if self.owns(start, owner)
            && let Some((end, _)) = self.owned.remove(&start)
        {
            self.used -= end - start;
        }
    }

    /// Sets the limit. What is owned beyond it stays owned until it is removed.
    pub(crate) fn resize(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// The free ranges, to carve from without changing anything.
    pub(crate) fn holes(&self) -> Holes {
        let mut holes = Vec::with_capacity(self.owned.len() + 1);
        let mut from = 0;
        for (&start, &(end, _)) in &self.owned {
            if from < start {
                holes.push(from..start);
            }
            from = end;
        }
        if from < self.limit {
            holes.push(from..self.limit);
        }
        Holes(holes)
    }
}

/// What is in the way of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// There are only so many pages.
    Limit(u64),
    /// Somebody has it.
    Owner(SegmentId),
}

/// Free ranges, sorted by start.
#[derive(Clone, Debug)]
pub(crate) struct Holes(Vec<Range<u64>>);

impl Holes {
    /// The start of `pages` contiguous pages out of the smallest hole that has them.
    pub(crate) fn take(&mut self, pages: u64) -> Option<u64> {
        let (index, _) = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, hole)| hole.end - hole.start >= pages)
            .min_by_key(|(_, hole)| hole.end - hole.start)?;
        let start = self.0[index].start;
        self.0[index].start += pages;
        if self.0[index].is_empty() {
            self.0.remove(index);
        }
        Some(start)
    }

    /// Ranges of `pages` pages in all: in one piece if possible, else in as few as possible.
    pub(crate) fn take_pieces(&mut self, mut pages: u64) -> Option<Vec<Range<u64>>> {
        let mut pieces = Vec::new();
        while pages > 0 {
            if let Some(start) = self.take(pages) {
                pieces.push(start..start + pages);
                break;
            }
            let (index, _) = self.0.iter().enumerate().max_by_key(|(_, hole)| hole.end - hole.start)?;
            let hole = self.0.remove(index);
            pages -= hole.end - hole.start;
            pieces.push(hole);
        }
        Some(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWNER: SegmentId = SegmentId(1);

    #[test]
    fn a_request_takes_the_smallest_hole_that_fits_else_the_largest_ones() {
        let mut extents = Extents::new(95);
        for range in [10..20, 25..30, 60..70] {
            extents.insert(&range, OWNER).unwrap();
        }
        assert_eq!(extents.holes().take(5), Some(20));
        assert_eq!(extents.holes().take_pieces(35), Some(vec![30..60, 20..25]));
        assert_eq!(extents.holes().take_pieces(71), None);
    }

    proptest! {
        /// The model is one cell per page.
        #[test]
        fn behaves_like_one_cell_per_page(
            actions in prop::collection::vec((0u64..40, 0u64..12, 0u64..4, any::<bool>()), 1..40),
        ) {
            let mut extents = Extents::new(40);
            let mut cells = [None; 40];
            for (start, len, owner, insert) in actions {
                let owner = SegmentId(owner);
                let range = start..start + len;
                if insert {
                    let possible = len > 0 && range.end <= 40 && range.clone().all(|page| cells[page as usize].is_none());
                    prop_assert_eq!(extents.insert(&range, owner).is_ok(), possible);
                    if possible {
                        range.for_each(|page| cells[page as usize] = Some((start, owner)));
                    }
                } else {
                    extents.remove(start, owner);
                    cells.iter_mut().filter(|cell| **cell == Some((start, owner))).for_each(|cell| *cell = None);
                }
                prop_assert_eq!(extents.used(), cells.iter().flatten().count() as u64);
                let free = extents.holes().0.into_iter().flatten().collect::<Vec<_>>();
                let expected = (0..40).filter(|page| cells[*page as usize].is_none()).collect::<Vec<_>>();
                prop_assert_eq!(free, expected);
            }
        }
    }
}
