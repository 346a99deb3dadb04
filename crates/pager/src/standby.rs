//! The standby list: pages that have left the target and are kept a while in this machine's memory.
//!
//! A page arrives here the moment it leaves the target and stays until newer ones push it out, which they may once its
//! slot holds it. Until then a fault takes it back at no network cost, and that return is the one sign of use that the
//! policy gets. The content lies in a memfd that the resident thread holds as well: nothing is lost with the pager.
//!
//! A ring: pages enter at the head, leave for good at the tail, and leave early anywhere.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rackmem_policy::PageRef;
use rackmem_types::{PAGE_SIZE, PageData};
use rackmem_uapi::shared::SharedMemory;

/// One place of the ring.
#[derive(Clone, Copy, Debug)]
struct Place {
    page: Option<PageRef>,
    /// The page that came in here last, even if it has left early.
    origin: PageRef,
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
    /// Pages on the list.
    live: usize,
}

impl Standby {
    /// A list of `capacity` places; at most 65,536, which is what an entry can name.
    pub(crate) fn new(capacity: usize) -> io::Result<Self> {
        assert!((1..=1 << 16).contains(&capacity), "a standby list of {capacity} places");
        let memory = SharedMemory::create("rackmem-standby", capacity * PAGE_SIZE)?;
        Ok(Self {
            memory,
            places: vec![Place { page: None, origin: PageRef(0), sending: false }; capacity],
            tail: 0,
            len: 0,
            live: 0,
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Pages on the list.
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
        self.places[index] = Place { page: Some(page), origin: page, sending };
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

    /// The send of the page that came in at `index` has ended, well or badly. Gives the page, which may have left early.
    pub(crate) fn sent(&mut self, index: u16) -> PageRef {
        let place = &mut self.places[usize::from(index)];
        place.sending = false;
        place.origin
    }

    /// The page at `index` leaves early.
    pub(crate) fn leave(&mut self, index: u16) {
        if self.places[usize::from(index)].page.take().is_some() {
            self.live -= 1;
        }
    }

    /// The page at `index` goes by another name (`mremap`).
    pub(crate) fn rename(&mut self, index: u16, page: PageRef) {
        let place = &mut self.places[usize::from(index)];
        (place.page, place.origin) = (Some(page), page);
    }

    /// The oldest page whose content is safe in its slot leaves for good. `None` if the oldest page is still on its way.
    pub(crate) fn pop(&mut self) -> Option<PageRef> {
        while self.len > 0 {
            let place = &mut self.places[self.tail];
            if place.sending {
                return None;
            }
            let page = place.page.take();
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
        standby.leave(second);
        assert_eq!(standby.sent(first), PageRef(1));
        assert_eq!(standby.pop(), Some(PageRef(1)));
        assert_eq!(standby.pop(), None);
        assert_eq!((standby.room(), standby.live()), (2, 1), "the early leaver's place is free");
        let mut back = [0; PAGE_SIZE];
        standby.read(third, &mut back);
        assert_eq!(back, data);
        standby.leave(third);
        assert_eq!(standby.sent(third), PageRef(3));
        assert_eq!(standby.pop(), None);
        assert_eq!((standby.room(), standby.live()), (3, 0));
    }
}
