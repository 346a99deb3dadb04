//! The standby list: pages that have left the target and are kept a while in this machine's memory.
//!
//! A page arrives here the moment it leaves the target and stays until newer ones push it out, which they may once its
//! slot holds it. Until then a fault takes it back at no network cost, and that return is the one sign of use that the
//! policy gets. The content lies in a memfd that the resident thread holds as well: nothing is lost with the pager.
//!
//! A ring: pages enter at the head, leave for good at the tail, and leave early anywhere.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rackmem_policy::PageRef;
use rackmem_types::{PAGE_SIZE, PageData};
use rackmem_uapi::shared::SharedMemory;

/// Name of the memfd.
pub(crate) const NAME: &str = "rackmem-standby";

/// One place of the ring.
#[derive(Clone, Copy, Debug)]
struct Place {
    page: Option<PageRef>,
    /// The content is on its way to its slot; the place must not be reused before the answer.
    sending: bool,
}

/// Pages on their way out, oldest first.
pub(crate) struct Standby {
    memory: SharedMemory,
    places: Vec<Place>,
    tail: usize,
    /// Places from the tail to the head, early leavers included.
    len: usize,
    /// Places with a page.
    live: usize,
    /// Further pages with the content at a place: a forked child's. Few, and only until they leave.
    sharers: HashMap<u16, Vec<PageRef>>,
}

impl Standby {
    /// A list of `capacity` places; at most 65,536, which is what an entry can name.
    pub(crate) fn new(capacity: usize) -> io::Result<Self> {
        assert!((1..=1 << 16).contains(&capacity), "a standby list of {capacity} places");
        Ok(Self::over(SharedMemory::create(NAME, capacity * PAGE_SIZE)?))
    }

    /// Takes over a list that a dead pager left. `found`: which pages are at which place; none is being sent.
    pub(crate) fn inherit(fd: OwnedFd, found: &[(u16, PageRef)]) -> io::Result<Self> {
        let len = rustix::fs::fstat(&fd)?.st_size as usize;
        if !(1..=1 << 16).contains(&(len / PAGE_SIZE)) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut standby = Self::over(SharedMemory::map(fd, len)?);
        for &(index, page) in found {
            match standby.places.get_mut(usize::from(index)) {
                None => {}
                Some(place) if place.page.is_none() => {
                    place.page = Some(page);
                    standby.live += 1;
                }
                Some(_) => standby.share(index, page),
            }
        }
        // The list begins behind the widest gap: early leavers leave narrower ones.
        let (gap, end) = standby.widest_gap();
        (standby.tail, standby.len) = (end, standby.places.len() - gap);
        Ok(standby)
    }

    /// Length and end of the longest run of free places.
    fn widest_gap(&self) -> (usize, usize) {
        let count = self.places.len();
        let (mut widest, mut run) = ((0, 0), 0);
        for i in 0..2 * count {
            run = if self.places[i % count].page.is_none() { (run + 1).min(count) } else { 0 };
            if run > widest.0 {
                widest = (run, (i + 1) % count);
            }
        }
        widest
    }

    fn over(memory: SharedMemory) -> Self {
        let capacity = memory.len() / PAGE_SIZE;
        Self {
            memory,
            places: vec![Place { page: None, sending: false }; capacity],
            tail: 0,
            len: 0,
            live: 0,
            sharers: HashMap::new(),
        }
    }

    /// Places.
    pub(crate) fn capacity(&self) -> usize {
        self.places.len()
    }

    /// The page that came in at `index`, if it is still there.
    pub(crate) fn page(&self, index: u16) -> Option<PageRef> {
        self.places.get(usize::from(index))?.page
    }

    /// The content at `index` is being sent.
    pub(crate) fn send(&mut self, index: u16) {
        self.places[usize::from(index)].sending = true;
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Pages on the list; one that several processes share counts once.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// Pages that can enter now.
    pub(crate) fn room(&self) -> usize {
        self.places.len() - self.len
    }

    /// Takes a page in at the head. There must be room.
    pub(crate) fn push(&mut self, page: PageRef, data: &PageData, sending: bool) -> u16 {
        assert!(self.room() > 0, "the standby list is full");
        let index = (self.tail + self.len) % self.places.len();
        self.memory.write(index * PAGE_SIZE, data);
        self.places[index] = Place { page: Some(page), sending };
        self.len += 1;
        self.live += 1;
        index as u16
    }

    /// Address of a page's content in this process, for the kernel to copy from.
    pub(crate) fn address(&self, index: u16) -> u64 {
        self.memory.address(usize::from(index) * PAGE_SIZE)
    }

    /// Copies a page's content.
    pub(crate) fn read(&self, index: u16, data: &mut PageData) {
        self.memory.read(usize::from(index) * PAGE_SIZE, data);
    }

    /// The send of the page that came in at `index` has ended, well or badly.
    pub(crate) fn sent(&mut self, index: u16) {
        self.places[usize::from(index)].sending = false;
    }

    /// `page` has the content at `index` too.
    pub(crate) fn share(&mut self, index: u16, page: PageRef) {
        self.sharers.entry(index).or_default().push(page);
    }

    /// `page`, which is at `index`, leaves early.
    pub(crate) fn leave(&mut self, index: u16, page: PageRef) {
        let heir = self.sharer(index, |sharer| sharer == page);
        if heir.is_some() {
            return;
        }
        let heir = self.sharer(index, |_| true);
        self.places[usize::from(index)].page = heir;
        self.live -= usize::from(heir.is_none());
    }

    /// A sharer of the place, taken off it.
    fn sharer(&mut self, index: u16, wanted: impl Fn(PageRef) -> bool) -> Option<PageRef> {
        let sharers = self.sharers.get_mut(&index)?;
        let found = sharers.iter().position(|&sharer| wanted(sharer)).map(|at| sharers.swap_remove(at));
        if sharers.is_empty() {
            self.sharers.remove(&index);
        }
        found
    }

    /// The page `old` at `index` goes by another name (`mremap`).
    pub(crate) fn rename(&mut self, index: u16, old: PageRef, new: PageRef) {
        if self.sharer(index, |sharer| sharer == old).is_some() {
            self.share(index, new);
        } else {
            self.places[usize::from(index)].page = Some(new);
        }
    }

    /// The oldest page whose content is safe in its slot leaves for good. `None` if the oldest page is still on its way.
    pub(crate) fn pop(&mut self) -> Option<PageRef> {
        while self.len > 0 {
            if self.places[self.tail].sending {
                return None;
            }
            if let Some(sharer) = self.sharer(self.tail as u16, |_| true) {
                return Some(sharer);
            }
            let page = self.places[self.tail].page.take();
            self.tail = (self.tail + 1) % self.places.len();
            self.len -= 1;
            if page.is_some() {
                self.live -= 1;
                return page;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_leave_in_order_once_they_are_sent() {
        let mut standby = Standby::new(3).unwrap();
        let data = [7; PAGE_SIZE];
        let first = standby.push(PageRef(1), &data, true);
        let second = standby.push(PageRef(2), &data, false);
        let third = standby.push(PageRef(3), &data, true);
        assert_eq!((standby.room(), standby.live()), (0, 3));
        assert_eq!(standby.pop(), None, "the oldest is still on its way");
        standby.leave(second, PageRef(2));
        standby.sent(first);
        assert_eq!(standby.pop(), Some(PageRef(1)));
        assert_eq!(standby.pop(), None);
        assert_eq!((standby.room(), standby.live()), (2, 1), "the early leaver's place is free");
        let mut back = [0; PAGE_SIZE];
        standby.read(third, &mut back);
        assert_eq!(back, data);
        standby.leave(third, PageRef(3));
        standby.sent(third);
        assert_eq!(standby.pop(), None);
        assert_eq!((standby.room(), standby.live()), (3, 0));
    }

    #[test]
    fn a_list_is_inherited_in_its_order() {
        let mut standby = Standby::new(6).unwrap();
        for i in 0..6 {
            standby.push(PageRef(i), &[i as u8; PAGE_SIZE], false);
        }
        (0..3).for_each(|i| assert_eq!(standby.pop(), Some(PageRef(i))));
        let newest = standby.push(PageRef(7), &[7; PAGE_SIZE], true);
        standby.leave(4, PageRef(4));
        let fd = || standby.fd().try_clone_to_owned().unwrap();
        let found =
            [(newest, PageRef(7)), (3, PageRef(3)), (5, PageRef(5)), (5, PageRef(8)), (9, PageRef(9))];
        let mut heir = Standby::inherit(fd(), &found).unwrap();
        assert_eq!((heir.live(), heir.room(), heir.page(newest)), (3, 2, Some(PageRef(7))));
        let mut data = [0; PAGE_SIZE];
        heir.read(newest, &mut data);
        assert_eq!(data, [7; PAGE_SIZE]);
        let popped: Vec<PageRef> = std::iter::from_fn(|| heir.pop()).collect();
        assert_eq!(popped, [PageRef(3), PageRef(8), PageRef(5), PageRef(7)]);
        assert_eq!(Standby::inherit(fd(), &[]).unwrap().room(), 6);
    }

    #[test]
    fn a_shared_place_is_free_when_its_last_page_has_left() {
        let mut standby = Standby::new(2).unwrap();
        let place = standby.push(PageRef(1), &[7; PAGE_SIZE], false);
        standby.share(place, PageRef(2));
        standby.share(place, PageRef(3));
        standby.rename(place, PageRef(3), PageRef(4));
        standby.leave(place, PageRef(1));
        assert_eq!(standby.live(), 1);
        let mut popped = [standby.pop().unwrap(), standby.pop().unwrap()];
        popped.sort_unstable();
        assert_eq!(popped, [PageRef(2), PageRef(4)]);
        assert_eq!((standby.pop(), standby.live(), standby.room()), (None, 0, 2));
    }
}
