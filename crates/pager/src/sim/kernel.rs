//! The simulated kernel: address spaces with pages, their userfaultfds, and the threads that wait there.
//!
//! It knows what the pager relies on, as Linux 6.18 does it: a fault is reported once and its thread waits to be woken;
//! faults are read before events; `munmap` and `mremap` take effect before their messages can be read, `madvise` after;
//! from the moment a mapping begins to change until its message has been read, nothing is installed or moved; a fork
//! copies what is present, and neither side's page can be moved then until it has been written to.
//!
//! The content of a page is one number. What the program must find is kept beside it (`truth`), and never looked at by
//! the pager's side.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::os::fd::RawFd;

use rackmem_types::{PAGE_SIZE, PageData};

use super::rng::Rng;

/// What lies at a page's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum There {
    Missing,
    Present { value: u64, exclusive: bool },
    Poisoned,
}

/// A page of a mapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    /// Mappings are told apart: no call reaches across a border.
    pub(super) mapping: u32,
    pub(super) registered: bool,
    pub(super) there: There,
    /// What the program wrote last.
    pub(super) truth: u64,
    /// Zero is right too: the page was being discarded when the process forked.
    pub(super) or_zero: bool,
}

/// A thread that waits for a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) thread: u32,
    pub(super) address: u64,
    pub(super) write: bool,
    pub(super) reported: bool,
}

/// A message about mappings.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Remove(u64, u64),
    Unmap(u64, u64),
    Remap(u64, u64, u64),
    Fork(usize),
}

/// An address space.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    pub(super) alive: bool,
    pub(super) pages: BTreeMap<u64, Page>,
    pub(super) waiters: Vec<Waiter>,
    /// Messages with the thread that waits for each to be read.
    pub(super) changes: VecDeque<(u32, Change)>,
    /// Changes that have begun and whose thread has not gone on since its message was read.
    pub(super) changing: u32,
    /// Ranges that a thread is discarding.
    pub(super) removing: Vec<(u32, Range<u64>)>,
    /// Children that were forked and whose message is not queued yet: another thread's may be queued before it.
    pub(super) forking: Vec<usize>,
    /// All threads but the resident one are held still.
    pub(super) paused: bool,
    /// Gate: 0 open, 1 a move is under way, 2 closed.
    pub(super) gate: u32,
    pub(super) cancelled: bool,
}

/// Everything.
pub(super) struct Kernel {
    pub(super) rng: Rng,
    pub(super) memories: Vec<Memory>,
    pub(super) by_fd: HashMap<RawFd, usize>,
    /// Children whose message was read and whose descriptor was not yet taken up.
    pub(super) born: HashMap<RawFd, usize>,
    next_mapping: u32,
    pub(super) next_value: u64,
    /// A memory server was lost, or answered wrongly: SIGBUS is an answer from now on.
    pub(super) harm: bool,
    /// A page that gave SIGBUS although no server did harm.
    pub(super) unexplained: Option<u64>,
    /// What the program has done so far.
    pub(super) steps: u64,
    /// One seed alone: what happens is printed.
    pub(super) loud: bool,
}

pub(super) const PAGE: u64 = PAGE_SIZE as u64;
/// A number in the middle of the page that must belong to the one at its start.
const TWIN: u64 = 0x5bd1_e995_7b93_1c2d;

/// The page whose content is `value`.
pub(super) fn page_of(value: u64) -> PageData {
    let mut data = [0; PAGE_SIZE];
    if value != 0 {
        data[..8].copy_from_slice(&value.to_ne_bytes());
        data[2048..2056].copy_from_slice(&(value ^ TWIN).to_ne_bytes());
    }
    data
}

/// The content of a page.
pub(super) fn value_of(data: &PageData) -> u64 {
    let word = |at: usize| u64::from_ne_bytes(data[at..at + 8].try_into().unwrap());
    let value = word(0);
    assert_eq!(word(2048), if value == 0 { 0 } else { value ^ TWIN }, "a page of two halves");
    value
}

impl Kernel {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            memories: Vec::new(),
            by_fd: HashMap::new(),
            born: HashMap::new(),
            next_mapping: 0,
            next_value: 1,
            harm: false,
            unexplained: None,
            steps: 0,
            loud: std::env::var_os("RACKMEM_SIM_SEED").is_some(),
        }
    }

    pub(super) fn memory_new(&mut self) -> usize {
        self.memories.push(Memory { alive: true, ..Memory::default() });
        self.memories.len() - 1
    }

    pub(super) fn map(&mut self, memory: usize, range: Range<u64>) {
        self.next_mapping += 1;
        let page = Page {
            mapping: self.next_mapping,
            registered: false,
            there: There::Missing,
            truth: 0,
            or_zero: false,
        };
        for address in range.step_by(PAGE as usize) {
            let before = self.memories[memory].pages.insert(address, page);
            assert!(before.is_none(), "mapped twice");
        }
    }

    /// The first free place in `room`.
    pub(super) fn free(&self, memory: usize, room: &Range<u64>, len: u64) -> Option<u64> {
        let pages = &self.memories[memory].pages;
        let mut start = room.start;
        while start + len <= room.end {
            match pages.range(start..start + len).next_back() {
                None => return Some(start),
                Some((&taken, _)) => start = taken + PAGE,
            }
        }
        None
    }

    /// The child of a fork, as of now.
    pub(super) fn forked(&mut self, parent: usize, without: &Range<u64>) -> usize {
        for page in self.memories[parent].pages.values_mut() {
            if let There::Present { exclusive, .. } = &mut page.there {
                *exclusive = false;
            }
        }
        self.tell(parent, "forks", without);
        let mut child = Memory { alive: true, ..Memory::default() };
        let from = &self.memories[parent];
        child.pages = from.pages.clone();
        child.pages.retain(|address, _| !without.contains(address));
        for (address, page) in &mut child.pages {
            page.or_zero |= from.removing.iter().any(|(_, range)| range.contains(address));
        }
        self.memories.push(child);
        self.memories.len() - 1
    }

    /// Wakes whoever waits in a range.
    pub(super) fn wake(&mut self, memory: usize, range: &Range<u64>) {
        self.memories[memory].waiters.retain(|waiter| !range.contains(&waiter.address));
    }

    /// Puts something at missing pages from `start` on (`over_poison`: and at poisoned ones, as `UFFDIO_COPY` does); how many
    /// bytes, and the error number that stopped it.
    pub(super) fn fill(
        &mut self,
        memory: usize,
        start: u64,
        len: u64,
        there: There,
        over_poison: bool,
    ) -> (u64, Option<i32>) {
        let this = &mut self.memories[memory];
        if !this.alive {
            return (0, Some(libc::ESRCH));
        }
        if this.changing > 0 {
            return (0, Some(libc::EAGAIN));
        }
        let range = start..start + len;
        let Some(first) = this.pages.get(&start).copied() else { return (0, Some(libc::ENOENT)) };
        let one = range.clone().step_by(PAGE as usize).all(|address| {
            this.pages.get(&address).is_some_and(|page| page.registered && page.mapping == first.mapping)
        });
        if !one {
            self.tell(memory, "no mapping for", &range);
            return (0, Some(libc::ENOENT));
        }
        let mut done = 0;
        for (_, page) in this.pages.range_mut(range) {
            match page.there {
                There::Missing => page.there = there,
                There::Poisoned if over_poison => page.there = there,
                _ => break,
            }
            done += PAGE;
        }
        self.tell(memory, "fill", &(start..start + done));
        self.wake(memory, &(start..start + done));
        (done, (done < len).then_some(libc::EEXIST))
    }

    /// `UFFDIO_MOVE`.
    pub(super) fn move_pages(&mut self, memory: usize, to: u64, from: u64, count: usize) -> (usize, i32) {
        let this = &mut self.memories[memory];
        if this.changing > 0 {
            return (0, libc::EAGAIN);
        }
        let len = count as u64 * PAGE;
        let Some(first) = this.pages.get(&from).copied() else { return (0, libc::EINVAL) };
        let same = |address| this.pages.get(&address).is_some_and(|page| page.mapping == first.mapping);
        if !(from..from + len).step_by(PAGE as usize).all(same) {
            return (0, libc::EINVAL);
        }
        for i in 0..count {
            let (to, from) = (to + i as u64 * PAGE, from + i as u64 * PAGE);
            let there = this.pages[&from].there;
            match there {
                There::Missing => return (i, libc::ENOENT),
                There::Poisoned => return (i, libc::EFAULT),
                There::Present { exclusive: false, .. } => return (i, libc::EBUSY),
                There::Present { .. } => {}
            }
            let target = this.pages.get_mut(&to).expect("the staging area is mapped");
            assert_eq!(target.there, There::Missing, "the staging area is used twice");
            target.there = there;
            this.pages.get_mut(&from).unwrap().there = There::Missing;
            // A page that is moved at the second try, because the program touches it just then, is not counted.
            if self.rng.one_in(16) {
                return (i, libc::EAGAIN);
            }
        }
        self.tell(memory, "move", &(from..from + len));
        (count, 0)
    }

    /// Prints what happened to a range, when one seed runs alone.
    pub(super) fn tell(&self, memory: usize, what: &str, range: &Range<u64>) {
        if self.loud {
            println!("{memory} {what} {:#x}..{:#x}", range.start, range.end);
        }
    }

    /// Drops the pages of a range.
    pub(super) fn zap(&mut self, memory: usize, range: Range<u64>) {
        self.tell(memory, "zap", &range);
        for (_, page) in self.memories[memory].pages.range_mut(range) {
            (page.there, page.truth, page.or_zero) = (There::Missing, 0, false);
        }
    }

    /// For each page, whether it is there.
    pub(super) fn present(&self, memory: usize, address: u64, count: usize) -> Vec<bool> {
        let there = |i| self.memories[memory].pages.get(&(address + i as u64 * PAGE)).map(|page| page.there);
        (0..count).map(|i| there(i).is_some_and(|there| there != There::Missing)).collect()
    }
}
