//! S3-FIFO (Yang et al., SOSP 2023) for a world without access bits: a small probation queue, a main queue as CLOCK
//! with two frequency bits, and a ghost of what left lately.
//!
//! What stands for a hit is a page that comes back from the standby list (`Reclaimed`); what stands for a ghost hit is
//! a re-fault. While the [`LoopGuard`] sees a loop that does not fit, newcomers leave first, so that part of the loop
//! stays.

use super::loop_guard::LoopGuard;
use super::page_bytes::{PageBytes, Place};
use super::queue::Queue;
use super::{Admission, Eviction, PageRef};

/// The probation queue's share of the resident set is one in this many.
const SMALL_SHARE: usize = 10;

/// Its share while a loop does not fit: just enough for pages on their way and prefetched windows.
const SMALL_SHARE_LOOPING: usize = 32;

/// Pages that move from probation to main with each victim after a loop was noticed. What is there is as good as any
/// other part of the loop; moving it bit by bit keeps each call short.
const KEPT_STEP: usize = 16;

/// Rounds of the main queue that a page gets when it comes back from the standby list.
const RECLAIMED_FREQUENCY: u8 = 2;

/// Pages that the main queue's hand passes over for one victim. When everything proved useful, frequencies tell little,
/// and a hand that went all the way round would hold up the pager.
const PASSES_MAX: usize = 64;

/// Pages that leave the ghost for each one that enters it, when the resident set shrinks.
const GHOST_STEP: usize = 2;

/// The ghost never holds fewer pages than this, so that tiny resident sets learn too.
const GHOST_MIN: usize = 256;

/// The policy. Memory: one byte for each page reference up to the highest seen, and about four bytes for each resident
/// page and each page of the ghost, which grows no longer than the resident set.
#[derive(Debug)]
pub struct S3Fifo {
    bytes: PageBytes,
    small: Queue,
    main: Queue,
    ghost: Queue,
    guard: LoopGuard,
    /// Pages on probation when the loop was noticed that still have to move to main.
    to_keep: usize,
}

impl S3Fifo {
    /// A policy that knows no page yet.
    pub fn new() -> Self {
        Self {
            bytes: PageBytes::default(),
            small: Queue::new(Place::Small),
            main: Queue::new(Place::Main),
            ghost: Queue::new(Place::Ghost),
            guard: LoopGuard::new(),
            to_keep: 0,
        }
    }

    /// Whether newcomers leave first because the program goes round a loop larger than its local memory.
    pub fn is_looping(&self) -> bool {
        self.guard.is_looping()
    }

    fn readmit(&mut self, page: PageRef, how: Admission) {
        self.ghost.remove(&mut self.bytes, page);
        let was_looping = self.guard.is_looping();
        self.guard.returned(page, self.resident());
        if !was_looping && self.guard.is_looping() {
            self.to_keep = self.small.len();
        }
        match how {
            Admission::Reclaimed => {
                self.main.push(&mut self.bytes, page);
                self.bytes.frequency_set(page, RECLAIMED_FREQUENCY);
            }
            // A page that was read ahead has yet to be asked for; and in a loop everything comes back, which proves
            // nothing about one page.
            _ if how == Admission::Prefetched || self.guard.is_looping() => {
                self.small.push(&mut self.bytes, page);
            }
            _ => self.main.push(&mut self.bytes, page),
        }
    }

    fn victim(&mut self) -> Option<PageRef> {
        let share = if self.guard.is_looping() { SMALL_SHARE_LOOPING } else { SMALL_SHARE };
        if self.guard.is_looping() {
            let step = self.to_keep.min(KEPT_STEP);
            self.to_keep -= step;
            (0..step).for_each(|_| self.promote());
        }
        while self.small.len() > self.resident() / share {
            let page = self.small.pop(&mut self.bytes)?;
            if self.bytes.frequency(page) == 0 {
                return Some(page);
            }
            // It was used while on probation.
            self.bytes.frequency_set(page, 0);
            self.main.push(&mut self.bytes, page);
        }
        self.main_victim().or_else(|| self.small.pop(&mut self.bytes))
    }

    fn promote(&mut self) {
        if let Some(page) = self.small.pop(&mut self.bytes) {
            self.main.push(&mut self.bytes, page);
        }
    }

    fn main_victim(&mut self) -> Option<PageRef> {
        for _ in 0..PASSES_MAX {
            let page = self.main.pop(&mut self.bytes)?;
            let frequency = self.bytes.frequency(page);
            if frequency == 0 {
                return Some(page);
            }
            self.bytes.frequency_set(page, frequency - 1);
            self.main.push(&mut self.bytes, page);
        }
        self.main.pop(&mut self.bytes)
    }
}

impl Default for S3Fifo {
    fn default() -> Self {
        Self::new()
    }
}

impl Eviction for S3Fifo {
    fn admit(&mut self, page: PageRef, how: Admission) {
        self.bytes.reach(page);
        match self.bytes.place(page) {
            Place::Small | Place::Main => {
                if matches!(how, Admission::Reclaimed | Admission::Fetched) {
                    self.bytes.frequency_set(page, self.bytes.frequency(page) + 1);
                }
            }
            Place::Ghost => self.readmit(page, how),
            Place::Nowhere => {
                self.bytes.frequency_set(page, 0);
                self.small.push(&mut self.bytes, page);
            }
        }
    }

    fn forget(&mut self, page: PageRef) {
        match self.bytes.place(page) {
            Place::Nowhere => {}
            Place::Small => self.small.remove(&mut self.bytes, page),
            Place::Main => self.main.remove(&mut self.bytes, page),
            Place::Ghost => self.ghost.remove(&mut self.bytes, page),
        }
    }

    fn victims(&mut self, count: usize, out: &mut Vec<PageRef>) {
        for _ in 0..count {
            let Some(page) = self.victim() else { return };
            self.bytes.frequency_set(page, 0);
            self.guard.evicted(page, self.resident());
            self.ghost.push(&mut self.bytes, page);
            for _ in 0..GHOST_STEP {
                if self.ghost.len() > self.resident().max(GHOST_MIN) {
                    self.ghost.pop(&mut self.bytes);
                }
            }
            out.push(page);
        }
    }

    fn resident(&self) -> usize {
        self.small.len() + self.main.len()
    }
}
