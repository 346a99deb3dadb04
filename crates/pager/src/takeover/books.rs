//! From the entries that a dead pager left to the books that a living one keeps: where each page is, who owns which slot, and
//! how many pages are where.
//!
//! What cannot be known is assumed to be the worse: a page whose store may not have arrived is stored again, and a page
//! whose content is nowhere to be found is lost, never empty.

use std::collections::HashMap;
use std::io;

use rackmem_far::SlotTable;
use rackmem_policy::PageRef;
use rackmem_types::{PAGE_SIZE, PageData, Slot};

use crate::entry::{Entry, State};
use crate::estate::Left;
use crate::standby::Standby;
use crate::table::{PageTable, SpaceId};

/// How many pages are where, and which are in their targets.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) resident: Vec<PageRef>,
    pub(crate) far: u64,
    pub(crate) lost: u64,
    /// Pages whose content could not be found: to be lost.
    pub(crate) missing: Vec<PageRef>,
    /// Slots that pages are in, as far as is known.
    pub(crate) stored: Vec<Slot>,
}

/// Asks what became of a page that was leaving, by its space and address; gives its content.
pub(crate) type Recover<'a> = dyn FnMut(Left, (SpaceId, u64), &mut PageData) -> io::Result<Recovered> + 'a;

/// What became of a page that was leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovered {
    /// It is still in the target.
    Stayed,
    /// It had left, and this is its content.
    Content,
    /// It had left, and nobody has its content.
    Nowhere,
}

/// Which pages are at which places of the standby list, by their entries.
pub(crate) fn standby_places(table: &PageTable) -> Vec<(u16, PageRef)> {
    let place = |page: PageRef| {
        let entry = table.get(page);
        (entry.state == State::Standby).then_some((entry.place, page))
    };
    table.pages().into_iter().filter_map(place).collect()
}

/// Puts all entries right, and counts them.
pub(crate) fn audit(
    table: &mut PageTable,
    standby: &mut Standby,
    slots: &mut SlotTable,
    batch: Vec<Left>,
    recover: &mut Recover<'_>,
) -> io::Result<Books> {
    let leaving: HashMap<PageRef, Left> = batch.into_iter().map(|left| (left.page, left)).collect();
    let mut books = Books::default();
    let mut data = [0; PAGE_SIZE];
    for page in table.pages() {
        let before = table.get(page);
        let mut entry = Entry { waited: false, ..before };
        if entry.slot.is_some_and(|slot| !slots.claim(slot)) {
            entry.slot = None;
        }
        match entry.state {
            State::Empty => entry.slot = entry.slot.filter(|&slot| unclaim(slots, slot)),
            State::Resident => stay(&mut books, page, &mut entry),
            State::Leaving => {
                let recovered = match leaving.get(&page) {
                    Some(&left) => recover(left, table.place(page), &mut data)?,
                    None => Recovered::Stayed, // planned, and not begun
                };
                match recovered {
                    Recovered::Stayed => stay(&mut books, page, &mut entry),
                    Recovered::Nowhere => lose(&mut books, page, &mut entry),
                    Recovered::Content if standby.room() == 0 => {
                        return Err(io::Error::other("the standby list has no room for what was leaving"));
                    }
                    Recovered::Content => {
                        entry.place = standby.push(page, &data, false);
                        (entry.state, entry.slot_valid, entry.discarded) = (State::Standby, false, false);
                    }
                }
            }
            // Whether its store has arrived is not known.
            State::Standby if usize::from(entry.place) < standby.capacity() => entry.slot_valid = false,
            State::Standby => lose(&mut books, page, &mut entry),
            State::Far | State::Fetching if entry.slot.is_some() => {
                entry.state = State::Far;
                books.far += 1;
                books.stored.extend(entry.slot);
            }
            State::Far | State::Fetching => lose(&mut books, page, &mut entry),
            State::Lost => books.lost += 1,
        }
        if entry != before {
            table.set(page, entry);
        }
    }
    Ok(books)
}

fn stay(books: &mut Books, page: PageRef, entry: &mut Entry) {
    entry.state = State::Resident;
    entry.slot_valid = false; // as above
    books.resident.push(page);
}

/// It counts as resident until it is lost by the ordinary way, which poisons it.
fn lose(books: &mut Books, page: PageRef, entry: &mut Entry) {
    (entry.state, entry.slot_valid, entry.discarded) = (State::Resident, false, false);
    books.resident.push(page);
    books.missing.push(page);
}

/// A page without content needs no slot.
fn unclaim(slots: &mut SlotTable, slot: Slot) -> bool {
    slots.release(slot);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x7000_0000;

    struct Remains {
        table: PageTable,
        standby: Standby,
        slots: SlotTable,
        batch: Vec<Left>,
    }

    fn left() -> Remains {
        let mut slots = SlotTable::default();
        slots.add_extent(0..100);
        Remains {
            table: PageTable::new().unwrap(),
            standby: Standby::new(8).unwrap(),
            slots,
            batch: Vec::new(),
        }
    }

    impl Remains {
        fn page(&mut self, i: u64, state: State, slot: Option<u32>, valid: bool) -> PageRef {
            let page = self.table.find_or_create(0, BASE + i * 4096).unwrap();
            let entry =
                Entry { state, slot: slot.map(Slot), slot_valid: valid, version: i, ..Entry::default() };
            self.table.set(page, entry);
            page
        }

        fn audit(&mut self, recovered: Recovered) -> Books {
            let mut recover = |_, _, data: &mut PageData| {
                data.fill(9);
                Ok(recovered)
            };
            let batch = std::mem::take(&mut self.batch);
            audit(&mut self.table, &mut self.standby, &mut self.slots, batch, &mut recover).unwrap()
        }
    }

    #[test]
    fn far_pages_stay_far_and_resident_ones_are_stored_again() {
        let mut left = left();
        let far = left.page(1, State::Far, Some(5), true);
        let fetching = left.page(2, State::Fetching, Some(5), true);
        let resident = left.page(3, State::Resident, Some(6), true);
        let gone = left.page(4, State::Far, Some(500), true);
        let books = left.audit(Recovered::Stayed);
        assert_eq!((books.far, &books.resident, &books.missing), (2, &vec![resident, gone], &vec![gone]));
        assert_eq!((left.slots.owners(Slot(5)), left.slots.used()), (2, 2));
        let entry = left.table.get(far);
        assert_eq!((entry.state, entry.slot_valid, entry.version), (State::Far, true, 1));
        assert_eq!(left.table.get(fetching).state, State::Far);
        assert!(!left.table.get(resident).slot_valid, "nobody knows whether its last store arrived");
    }

    #[test]
    fn what_was_leaving_is_where_it_is() {
        for (recovered, state) in [
            (Recovered::Stayed, State::Resident),
            (Recovered::Content, State::Standby),
            (Recovered::Nowhere, State::Resident),
        ] {
            let mut left = left();
            let page = left.page(1, State::Leaving, Some(5), true);
            let planned = left.page(2, State::Leaving, None, false);
            left.batch = vec![Left { index: 0, page, staged: Some(0x1000) }];
            let books = left.audit(recovered);
            let entry = left.table.get(page);
            assert_eq!((entry.state, entry.slot_valid), (state, false));
            assert_eq!(left.table.get(planned).state, State::Resident);
            assert_eq!(books.missing.contains(&page), recovered == Recovered::Nowhere);
            if recovered == Recovered::Content {
                let mut data = [0; PAGE_SIZE];
                left.standby.read(entry.place, &mut data);
                assert_eq!((data, left.standby.page(entry.place)), ([9; PAGE_SIZE], Some(page)));
            }
        }
    }
}
