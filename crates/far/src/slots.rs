//! Which slots of the far space are free, and how many owners each other one has: a fork shares pages copy-on-write.
//!
//! Pure. It hands out neighbours to neighbours, so that a prefetch window is one run of pages on one server. It never
//! knows where a slot lives ([`crate::rmc`] does) or what it holds.

use std::collections::BTreeMap;
use std::ops::Range;

use rackmem_types::Slot;

const WORD: u32 = u64::BITS;

/// The slots of one far memory.
#[derive(Debug, Default)]
pub struct SlotTable {
    /// By first slot.
    extents: BTreeMap<u32, Extent>,
    free: u32,
    used: u32,
}

#[derive(Debug)]
struct Extent {
    /// One bit per slot, set while it is free.
    free: Vec<u64>,
    free_count: u32,
    /// Slots with owners.
    used: u32,
    owners: Vec<u32>,
    /// What is released is free no more.
    retired: bool,
    /// Where the search for a slot without neighbour goes on.
    next: u32,
}

impl Extent {
    fn len(&self) -> u32 {
        self.owners.len() as u32
    }

    fn is_free(&self, index: u32) -> bool {
        index < self.len() && self.free[(index / WORD) as usize] >> (index % WORD) & 1 == 1
    }

    /// The first free slot at or behind `from`, else the first of all.
    fn find(&self, from: u32) -> Option<u32> {
        if self.free_count == 0 {
            return None;
        }
        let words = self.free.len();
        let first = ((from / WORD) as usize).min(words - 1);
        let behind = self.free[first] & (u64::MAX << (from % WORD));
        if from < self.len() && behind != 0 {
            return Some(first as u32 * WORD + behind.trailing_zeros());
        }
        (1..=words)
            .map(|step| (first + step) % words)
            .find(|word| self.free[*word] != 0)
            .map(|word| word as u32 * WORD + self.free[word].trailing_zeros())
    }

    fn take(&mut self, index: u32) {
        self.free[(index / WORD) as usize] &= !(1 << (index % WORD));
        self.free_count -= 1;
        self.used += 1;
        self.owners[index as usize] = 1;
        self.next = index + 1;
    }
}

impl SlotTable {
    /// Adds slots, all free. Panics if some are there already.
    pub fn add_extent(&mut self, slots: Range<u32>) {
        assert!(!slots.is_empty(), "an extent without slots");
        let before = self.extents.range(..slots.end).next_back();
        assert!(
            before.is_none_or(|(start, extent)| start + extent.len() <= slots.start),
            "slots {slots:?} are there already"
        );
        let len = slots.end - slots.start;
        let mut free = vec![u64::MAX; len.div_ceil(WORD) as usize];
        if let Some(last) = free.last_mut().filter(|_| !len.is_multiple_of(WORD)) {
            *last = (1 << (len % WORD)) - 1;
        }
        let owners = vec![0; len as usize];
        let extent = Extent { free, free_count: len, used: 0, owners, retired: false, next: 0 };
        self.extents.insert(slots.start, extent);
        self.free += len;
    }

    /// No slot of an extent is handed out any more; what is owned stays so until it is released. `slots` is a range that was added.
    pub fn retire(&mut self, slots: &Range<u32>) {
        if let Some(extent) = self.extents.get_mut(&slots.start).filter(|extent| !extent.retired) {
            extent.retired = true;
            self.free -= extent.free_count;
            extent.free_count = 0;
            extent.free.fill(0);
        }
    }

    /// The slots of an extent are handed out again.
    pub fn restore(&mut self, slots: &Range<u32>) {
        if let Some(extent) = self.extents.get_mut(&slots.start).filter(|extent| extent.retired) {
            extent.retired = false;
            for index in
                (0..extent.len()).filter(|index| extent.owners[*index as usize] == 0).collect::<Vec<_>>()
            {
                extent.free[(index / WORD) as usize] |= 1 << (index % WORD);
                extent.free_count += 1;
            }
            self.free += extent.free_count;
        }
    }

    /// Whether the slot is of an extent that was retired.
    pub fn is_retired(&self, slot: Slot) -> bool {
        self.locate(slot).is_some_and(|(start, _)| self.extents[&start].retired)
    }

    /// Owned slots of an extent.
    pub fn used_in(&self, slots: &Range<u32>) -> u32 {
        self.extents.get(&slots.start).map_or(0, |extent| extent.used)
    }

    /// Forgets slots, owned or not: their server is lost. `slots` is a range that was added.
    pub fn remove_extent(&mut self, slots: Range<u32>) {
        if let Some(extent) = self.extents.remove(&slots.start) {
            assert_eq!(extent.len(), slots.end - slots.start, "slots {slots:?} were not added like this");
            self.free -= extent.free_count;
            self.used -= extent.used;
        }
    }

    /// Takes a free slot, with one owner: the one behind `near` if that is free, else one close behind it, else any.
    pub fn allocate(&mut self, near: Option<Slot>) -> Option<Slot> {
        let neighbour = near.and_then(|near| self.neighbour(near));
        let (start, index) = neighbour.or_else(|| self.anywhere())?;
        self.extents.get_mut(&start)?.take(index);
        self.free -= 1;
        self.used += 1;
        Some(Slot(start + index))
    }

    /// One more owner of a slot that may be free: for one who takes over what another has left. `false` if there is no such
    /// slot.
    pub fn claim(&mut self, slot: Slot) -> bool {
        let Some((start, index)) = self.locate(slot) else { return false };
        let Some(extent) = self.extents.get_mut(&start) else { return false };
        if extent.is_free(index) {
            extent.take(index);
            self.free -= 1;
            self.used += 1;
            return true;
        }
        let owners = &mut extent.owners[index as usize];
        *owners = owners.saturating_add(1);
        true
    }

    /// One more owner. Panics if the slot is free.
    pub fn share(&mut self, slot: Slot) {
        let owners = self.owned(slot);
        *owners = owners.checked_add(1).expect("a slot cannot have 2^32 owners");
    }

    /// One owner less; `true` if that was the last one and the slot is free again. Slots that were removed with their
    /// extent are nobody's: `false`. Panics if the slot is free.
    pub fn release(&mut self, slot: Slot) -> bool {
        if self.locate(slot).is_none() {
            return false;
        }
        let owners = self.owned(slot);
        *owners -= 1;
        if *owners > 0 {
            return false;
        }
        let (start, index) = self.locate(slot).expect("found above");
        let extent = self.extents.get_mut(&start).expect("found above");
        extent.used -= 1;
        self.used -= 1;
        if !extent.retired {
            extent.free[(index / WORD) as usize] |= 1 << (index % WORD);
            extent.free_count += 1;
            self.free += 1;
        }
        true
    }

    /// How many own the slot; 0: it is free, or not there.
    pub fn owners(&self, slot: Slot) -> u32 {
        self.locate(slot).map_or(0, |(start, index)| self.extents[&start].owners[index as usize])
    }

    /// Free slots.
    pub fn free(&self) -> u32 {
        self.free
    }

    /// Owned slots.
    pub fn used(&self) -> u32 {
        self.used
    }

    fn neighbour(&self, near: Slot) -> Option<(u32, u32)> {
        let wanted = Slot(near.0.checked_add(1)?);
        if let Some((start, index)) = self.locate(wanted)
            && self.extents[&start].is_free(index)
        {
            return Some((start, index));
        }
        let (start, index) = self.locate(near)?;
        self.extents[&start].find(index).map(|index| (start, index))
    }

    fn anywhere(&self) -> Option<(u32, u32)> {
        self.extents.iter().find_map(|(start, extent)| extent.find(extent.next).map(|index| (*start, index)))
    }

    fn locate(&self, slot: Slot) -> Option<(u32, u32)> {
        let (start, extent) = self.extents.range(..=slot.0).next_back()?;
        let index = slot.0 - start;
        (index < extent.len()).then_some((*start, index))
    }

    fn owned(&mut self, slot: Slot) -> &mut u32 {
        let (start, index) = self.locate(slot).unwrap_or_else(|| panic!("{slot:?} is not there"));
        let owners = &mut self.extents.get_mut(&start).expect("just located").owners[index as usize];
        assert!(*owners > 0, "{slot:?} is free");
        owners
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn neighbours_get_neighbours() {
        let mut table = SlotTable::default();
        table.add_extent(100..300);
        let first = table.allocate(None).unwrap();
        let second = table.allocate(Some(first)).unwrap();
        assert_eq!(second, Slot(first.0 + 1));
        // Taken: the next one behind it.
        assert_eq!(table.allocate(Some(first)), Some(Slot(first.0 + 2)));
        table.add_extent(300..310);
        let last = table.allocate(Some(Slot(298))).unwrap();
        assert_eq!((last, table.allocate(Some(last))), (Slot(299), Some(Slot(300))));
    }

    #[test]
    #[should_panic(expected = "are there already")]
    fn refuses_overlapping_extents() {
        let mut table = SlotTable::default();
        table.add_extent(0..10);
        table.add_extent(9..12);
    }

    #[test]
    fn what_another_left_is_claimed_owner_by_owner() {
        let mut table = SlotTable::default();
        table.add_extent(10..20);
        assert!(table.claim(Slot(12)) && table.claim(Slot(12)) && !table.claim(Slot(20)));
        assert_eq!((table.owners(Slot(12)), table.used(), table.free()), (2, 1, 9));
        assert!(!table.release(Slot(12)) && table.release(Slot(12)));
        assert_eq!(table.free(), 10);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(u32),
        Remove(u32),
        Allocate(Option<u32>),
        Share(usize),
        Release(usize),
        Retire(u32),
        Restore(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => (0u32..4).prop_map(Step::Add),
            1 => (0u32..4).prop_map(Step::Remove),
            20 => prop::option::of(0u32..420).prop_map(Step::Allocate),
            5 => any::<usize>().prop_map(Step::Share),
            12 => any::<usize>().prop_map(Step::Release),
            2 => (0u32..4).prop_map(Step::Retire),
            1 => (0u32..4).prop_map(Step::Restore),
        ]
    }

    const EXTENT: u32 = 100;

    fn range(extent: u32) -> Range<u32> {
        extent * EXTENT..(extent + 1) * EXTENT
    }

    proptest! {
        /// The model is a map from slot to owners, and a set of extents that are retired.
        #[test]
        fn behaves_like_a_map_of_owners(steps in prop::collection::vec(step(), 1..400)) {
            let mut table = SlotTable::default();
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            let mut retired: BTreeSet<u32> = BTreeSet::new();
            for step in steps {
                let owned: Vec<u32> = model.iter().filter(|(_, n)| **n > 0).map(|(slot, _)| *slot).collect();
                match step {
                    Step::Add(extent) if !model.contains_key(&range(extent).start) => {
                        table.add_extent(range(extent));
                        model.extend(range(extent).map(|slot| (slot, 0)));
                    }
                    Step::Remove(extent) => {
                        table.remove_extent(range(extent));
                        model.retain(|slot, _| !range(extent).contains(slot));
                        retired.retain(|slot| !range(extent).contains(slot));
                    }
                    Step::Allocate(near) => {
                        let slot = table.allocate(near.map(Slot));
                        let is_free = |slot: &u32| model.get(slot) == Some(&0) && !retired.contains(slot);
                        prop_assert_eq!(slot.is_some(), model.keys().any(is_free));
                        if let Some(Slot(slot)) = slot {
                            prop_assert!(is_free(&slot));
                            let behind = near.map(|near| near + 1).filter(is_free);
                            prop_assert!(behind.is_none_or(|behind| behind == slot));
                            prop_assert_eq!(model.insert(slot, 1), Some(0));
                        }
                    }
                    Step::Share(pick) if !owned.is_empty() => {
                        let slot = owned[pick % owned.len()];
                        table.share(Slot(slot));
                        *model.get_mut(&slot).unwrap() += 1;
                    }
                    Step::Release(pick) if !owned.is_empty() => {
                        let slot = owned[pick % owned.len()];
                        let left = model.get_mut(&slot).unwrap();
                        *left -= 1;
                        prop_assert_eq!(table.release(Slot(slot)), *left == 0);
                    }
                    Step::Retire(extent) => {
                        table.retire(&range(extent));
                        retired.extend(range(extent).filter(|slot| model.contains_key(slot)));
                    }
                    Step::Restore(extent) => {
                        table.restore(&range(extent));
                        retired.retain(|slot| !range(extent).contains(slot));
                    }
                    _ => {}
                }
                let used = model.values().filter(|owners| **owners > 0).count();
                let free = model.iter().filter(|(slot, owners)| **owners == 0 && !retired.contains(slot));
                prop_assert_eq!((table.used(), table.free()), (used as u32, free.count() as u32));
                for extent in 0..4 {
                    let owned = model.range(range(extent)).filter(|(_, owners)| **owners > 0).count();
                    prop_assert_eq!(table.used_in(&range(extent)), owned as u32);
                }
            }
            for (slot, owners) in model {
                prop_assert_eq!(table.is_retired(Slot(slot)), retired.contains(&slot));
                prop_assert_eq!(table.owners(Slot(slot)), owners);
            }
        }
    }
}
