//! Messages of userfaultfds that were read and not yet acted upon.
//!
//! Each space has a row of places. A read goes straight into the first free ones; what is of no further interest (faults are
//! taken again after a wake-up) is struck out at once, a change of mappings when it has been acted upon. When none is left,
//! the row begins anew. If it were ever full, messages are read elsewhere, and do not outlive the pager.

use std::os::fd::BorrowedFd;

use rackmem_uapi::shared::SharedMemory;
use rackmem_uapi::uffd::{MESSAGE_BYTES, MESSAGES_MAX, Recorded, recorded};

use super::Estate;
use super::spaces::{EVENTS_BYTES, SPACES_MAX, events_at};
use crate::table::SpaceId;

/// Messages of one space: thousands of changes may be read before a quiet moment comes.
const PLACES: usize = EVENTS_BYTES / MESSAGE_BYTES;

/// What is known of a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Journal {
    /// Places in use, from the first on; behind them all are struck out.
    head: usize,
    /// How many of them are not struck out.
    live: usize,
}

/// Where messages are to be read to.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) memory: &'a SharedMemory,
    pub(crate) offset: usize,
}

/// One message in the estate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    space: SpaceId,
    place: usize,
}

/// How far a change has been acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Noted = 0,
    /// Its turn has come, before all others that are noted.
    Begun = 1,
    /// A move's destination has been cleared, and entries are moving.
    Moving = 2,
}

impl Estate {
    /// Where the next messages of a space go. `None`: there is no room.
    pub(crate) fn event_place(&mut self, id: SpaceId) -> Option<Place<'_>> {
        let index = usize::from(id);
        if index >= SPACES_MAX {
            return None;
        }
        if self.journals.len() <= index {
            self.journals.resize(index + 1, Journal::default());
        }
        let head = self.journals[index].head;
        (head + MESSAGES_MAX <= PLACES)
            .then_some(Place { memory: &self.memory, offset: events_at(id) + head * MESSAGE_BYTES })
    }

    /// `count` messages were read to [`Estate::event_place`]; `wanted` are of further interest, by their order. Gives the
    /// record of the first.
    pub(crate) fn events_keep(
        &mut self,
        id: SpaceId,
        count: usize,
        wanted: impl Fn(usize) -> bool,
    ) -> Record {
        let first = self.journals[usize::from(id)].head;
        let mut live = 0;
        for i in 0..count {
            if wanted(i) {
                live += 1;
            } else {
                self.put(events_at(id) + (first + i) * MESSAGE_BYTES, 0);
            }
        }
        if live > 0 {
            let journal = &mut self.journals[usize::from(id)];
            journal.head += count;
            journal.live += live;
            let head = journal.head;
            self.head_put(id, head);
        }
        Record { space: id, place: first }
    }

    /// A forked child's descriptor is put away under `serial`. `false`: it could not be, and the child would not outlive the
    /// pager.
    #[must_use]
    pub(crate) fn child_keep(&mut self, record: Option<Record>, serial: u64, fd: BorrowedFd<'_>) -> bool {
        if let Some(record) = record {
            self.put(record.at() + 16, serial);
        }
        self.drawers.keep(serial, fd).is_ok() && record.is_some()
    }

    pub(crate) fn event_phase(&mut self, record: Record, phase: Phase) {
        // Byte 4 of a message is reserved, and zero as the kernel writes it.
        let word = self.get(record.at()) & 0xff;
        self.put(record.at(), word | (phase as u64) << 32);
    }

    /// The change has been acted upon.
    pub(crate) fn event_done(&mut self, record: Record) {
        self.put(record.at(), 0);
        let Some(journal) = self.journals.get_mut(usize::from(record.space)) else { return };
        journal.live = journal.live.saturating_sub(1);
        if journal.live == 0 {
            journal.head = 0;
            self.head_put(record.space, 0);
        }
    }

    /// Strikes everything out: the space is gone.
    pub(super) fn events_clear(&mut self, id: SpaceId) {
        let head = self.journals.get_mut(usize::from(id)).map_or(0, |journal| std::mem::take(journal).head);
        for place in 0..head {
            self.put(Record { space: id, place }.at(), 0);
        }
        self.head_put(id, 0);
    }

    /// What a dead pager had not acted upon, in the order in which it was read: also what it had just read. With each the
    /// serial number of the child, if it is a fork.
    pub(crate) fn events(&self, id: SpaceId) -> Vec<(Record, Phase, Recorded, u64)> {
        let head = self.journals.get(usize::from(id)).map_or(0, |journal| journal.head);
        let event = |place: usize| {
            let record = Record { space: id, place };
            let words: [u64; 4] = std::array::from_fn(|k| self.get(record.at() + k * 8));
            let phase = match words[0] >> 32 {
                0 => Phase::Noted,
                1 => Phase::Begun,
                _ => Phase::Moving,
            };
            recorded(words).map(|change| (record, phase, change, words[2]))
        };
        (0..head).filter_map(event).collect()
    }

    /// Takes up the rows that a dead pager left.
    pub(super) fn journals_load(&mut self) {
        for id in 0..SPACES_MAX as SpaceId {
            if !self.is_space(id) {
                continue;
            }
            // What was being read when it died lies behind the head.
            let head = (self.head_get(id) + MESSAGES_MAX).min(PLACES);
            if self.journals.len() <= usize::from(id) {
                self.journals.resize(usize::from(id) + 1, Journal::default());
            }
            self.journals[usize::from(id)].head = head;
            let live = self.events(id).len();
            let head = if live == 0 { 0 } else { head };
            for place in head..self.journals[usize::from(id)].head {
                self.put(Record { space: id, place }.at(), 0); // faults, which will be taken again
            }
            self.journals[usize::from(id)] = Journal { head, live };
            self.head_put(id, head);
        }
    }
}

impl Record {
    fn at(self) -> usize {
        events_at(self.space) + self.place * MESSAGE_BYTES
    }

    /// The record of the message that was read `i` after this one.
    pub(crate) fn after(self, i: usize) -> Self {
        Self { place: self.place + i, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does in a read.
    fn arrive(estate: &mut Estate, id: SpaceId, messages: &[[u64; 4]]) {
        let place = estate.event_place(id).unwrap();
        let at = place.offset;
        for (i, words) in messages.iter().enumerate() {
            for (k, word) in words.iter().enumerate() {
                estate.put(at + i * MESSAGE_BYTES + k * 8, *word);
            }
        }
    }

    const FAULT: [u64; 4] = [0x12, 0, 0x1000, 7];
    const UNMAP: [u64; 4] = [0x16, 0x1000, 0x3000, 0];
    const FORK: [u64; 4] = [0x13, 5, 0, 0];

    #[test]
    fn changes_stay_until_they_were_acted_upon() {
        let mut estate = Estate::new().unwrap();
        arrive(&mut estate, 2, &[FAULT, UNMAP, FORK]);
        let first = estate.events_keep(2, 3, |i| i > 0);
        let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        assert!(estate.child_keep(Some(first.after(2)), 99, std::os::fd::AsFd::as_fd(&fd)));
        estate.event_phase(first.after(1), Phase::Begun);
        let events = estate.events(2);
        let unmap = Recorded::Unmap { start: 0x1000, end: 0x3000 };
        assert_eq!(events[0], (first.after(1), Phase::Begun, unmap, 0x3000));
        assert_eq!((&events[1].2, events[1].3), (&Recorded::Fork { number: 5 }, 99));
        estate.event_done(first.after(1));
        assert_eq!(estate.events(2).len(), 1);
        estate.event_done(first.after(2));
        assert_eq!((estate.events(2).len(), estate.journals[2].head), (0, 0), "the row begins anew");
    }

    #[test]
    fn faults_take_no_room() {
        let mut estate = Estate::new().unwrap();
        for _ in 0..3 * PLACES {
            arrive(&mut estate, 0, &[FAULT]);
            estate.events_keep(0, 1, |_| false);
        }
        assert!(estate.events(0).is_empty());
    }

    #[test]
    fn what_was_just_read_is_found_and_a_full_row_says_so() {
        let mut estate = Estate::new().unwrap();
        estate.space_state(0, super::super::SpaceState::Live);
        arrive(&mut estate, 0, &[UNMAP]);
        estate.events_keep(0, 1, |_| true);
        arrive(&mut estate, 0, &[FAULT, UNMAP]);
        estate.journals.clear();
        estate.journals_load();
        assert_eq!(estate.events(0).len(), 2);
        while estate.event_place(0).is_some() {
            arrive(&mut estate, 0, &[UNMAP; MESSAGES_MAX]);
            estate.events_keep(0, MESSAGES_MAX, |_| true);
        }
        assert!(estate.events(0).len() > PLACES - 3 * MESSAGES_MAX);
    }
}
