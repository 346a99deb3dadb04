//! A FIFO of page references with lazy deletion: removing a page only counts its entry as dead, and dead entries are
//! skipped when they reach the front. It never holds more than twice its live entries plus a constant.

use std::collections::VecDeque;

use super::PageRef;
use super::page_bytes::{PageBytes, Place, dead_max};

/// Dead entries that are tolerated whatever the queue's length, so that short queues are not swept all the time.
const DEAD_MIN: usize = 256;

#[derive(Debug)]
pub(super) struct Queue {
    place: Place,
    entries: VecDeque<PageRef>,
    live: usize,
}

impl Queue {
    pub(super) fn new(place: Place) -> Self {
        Self { place, entries: VecDeque::new(), live: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Puts `page`, which must be in no queue, at the end.
    pub(super) fn push(&mut self, bytes: &mut PageBytes, page: PageRef) {
        let dead = bytes.dead(page, self.place);
        if dead == dead_max(self.place) {
            // The byte cannot count another dead entry: the youngest dead one lives again, a little nearer to the
            // front than it should be.
            bytes.dead_set(page, self.place, dead - 1);
        } else {
            self.entries.push_back(page);
        }
        bytes.place_set(page, self.place);
        self.live += 1;
    }

    /// Takes `page`, which must be in this queue, out of it.
    pub(super) fn remove(&mut self, bytes: &mut PageBytes, page: PageRef) {
        bytes.dead_set(page, self.place, bytes.dead(page, self.place) + 1);
        bytes.place_set(page, Place::Nowhere);
        self.live -= 1;
        if self.entries.len() > 2 * self.live + DEAD_MIN {
            self.sweep(bytes);
        }
    }

    /// Takes the page at the front.
    pub(super) fn pop(&mut self, bytes: &mut PageBytes) -> Option<PageRef> {
        while let Some(page) = self.entries.pop_front() {
            if !take_dead(bytes, self.place, page) {
                bytes.place_set(page, Place::Nowhere);
                self.live -= 1;
                return Some(page);
            }
        }
        None
    }

    fn sweep(&mut self, bytes: &mut PageBytes) {
        self.entries.retain(|page| !take_dead(bytes, self.place, *page));
        self.entries.shrink_to(4 * self.live + DEAD_MIN);
    }
}

/// Whether the foremost entry of `page` is dead; if so it is counted off, and the caller drops it.
fn take_dead(bytes: &mut PageBytes, place: Place, page: PageRef) -> bool {
    let dead = bytes.dead(page, place);
    if dead > 0 {
        bytes.dead_set(page, place, dead - 1);
    }
    dead > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_entries_are_bounded_and_the_order_stays() {
        let (mut bytes, mut queue) = (PageBytes::default(), Queue::new(Place::Small));
        for round in 0..5_000 {
            for page in [0, 1, 2, 3 + round % 700] {
                let page = PageRef(page);
                bytes.reach(page);
                if bytes.place(page) == Place::Small {
                    queue.remove(&mut bytes, page);
                }
                queue.push(&mut bytes, page);
                assert!(queue.entries.len() <= 2 * queue.len() + DEAD_MIN);
            }
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(&mut bytes)).collect();
        assert_eq!(order.len(), 703);
        // The last pushes were, round by round, 0, 1, 2 and the next of the others: 5,000 is 7 × 700 + 100.
        let others: Vec<_> = order.iter().copied().filter(|page| page.0 >= 3).collect();
        let expected: Vec<_> = (100..700).chain(0..100).map(|i| PageRef(3 + i)).collect();
        assert_eq!(others, expected);
    }
}
