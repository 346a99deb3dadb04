//! The batch that is leaving: which page went to which place.
//!
//! Moved pages lie in the staging area, from `base` on in the order of the batch. Where the kernel cannot move (before Linux
//! 6.8) they are kept here before they are dropped in the program.

use rackmem_policy::PageRef;
use rackmem_types::{PAGE_SIZE, PageData};

use super::{BATCH, Estate, PAGES};
use crate::space::BATCH_PAGES;
use crate::table::SpaceId;

const BASE: usize = BATCH + 8;
const COUNT: usize = BATCH + 16;
const LIST: usize = BATCH + 64;
const KEPT: usize = LIST + BATCH_PAGES * 8;

const _: () = assert!(KEPT + BATCH_PAGES * 8 <= PAGES);
const _: () = assert!(PAGES + BATCH_PAGES * PAGE_SIZE <= super::EXTENTS);

/// A page that was leaving when its pager died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) index: usize,
    pub(crate) page: PageRef,
    /// Its place in the staging area; `None`: it was to be kept here.
    pub(crate) staged: Option<u64>,
}

impl Estate {
    /// A batch is about to leave: to the staging area from `base` on, or, with `None`, through [`Estate::batch_keep`].
    pub(crate) fn batch_begin(&mut self, id: SpaceId, base: Option<u64>, batch: &[(PageRef, u64)]) {
        self.batch_end();
        for (i, &(page, _)) in batch.iter().enumerate() {
            self.put(LIST + i * 8, page.0.into());
            if base.is_none() {
                self.put(KEPT + i * 8, 0);
            }
        }
        self.put(BASE, base.unwrap_or(0));
        self.put(COUNT, batch.len() as u64);
        self.put(BATCH, u64::from(id) + 1);
    }

    /// The content of page `index` of the batch, which is about to be dropped.
    pub(crate) fn batch_keep(&mut self, index: usize, data: &PageData) {
        self.memory.write(PAGES + index * PAGE_SIZE, data);
        self.put(KEPT + index * 8, 1);
    }

    /// All pages of the batch have left or stayed, and their entries say so.
    pub(crate) fn batch_end(&mut self) {
        self.put(BATCH, 0);
    }

    /// The batch that was leaving.
    pub(crate) fn batch(&self) -> Vec<Left> {
        if self.get(BATCH) == 0 {
            return Vec::new();
        }
        let count = (self.get(COUNT) as usize).min(BATCH_PAGES);
        let base = Some(self.get(BASE)).filter(|&base| base != 0);
        let left = |index: usize| Left {
            index,
            page: PageRef(self.get(LIST + index * 8) as u32),
            staged: base.map(|base| base.wrapping_add((index * PAGE_SIZE) as u64)),
        };
        (0..count).map(left).collect()
    }

    /// What [`Estate::batch_keep`] was given.
    pub(crate) fn batch_kept(&self, index: usize, data: &mut PageData) -> bool {
        let kept = index < BATCH_PAGES && self.get(KEPT + index * 8) == 1;
        if kept {
            self.memory.read(PAGES + index * PAGE_SIZE, data);
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_there_until_it_is_recorded() {
        let mut estate = Estate::new().unwrap();
        assert_eq!(estate.batch(), []);
        estate.batch_begin(3, Some(0x7000), &[(PageRef(9), 0), (PageRef(4), 0)]);
        let left = |index, page, staged| Left { index, page: PageRef(page), staged };
        assert_eq!(estate.batch(), [left(0, 9, Some(0x7000)), left(1, 4, Some(0x8000))]);
        estate.batch_begin(3, None, &[(PageRef(9), 0), (PageRef(5), 0)]);
        estate.batch_keep(1, &[7; PAGE_SIZE]);
        assert_eq!(estate.batch(), [left(0, 9, None), left(1, 5, None)]);
        let mut data = [0; PAGE_SIZE];
        assert!(!estate.batch_kept(0, &mut data));
        assert!(estate.batch_kept(1, &mut data) && data == [7; PAGE_SIZE]);
        estate.batch_end();
        assert_eq!(estate.batch(), []);
    }
}
