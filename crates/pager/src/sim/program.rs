//! The simulated program: what its threads do, and where.

use std::ops::Range;
use std::sync::Arc;

use super::kernel::{PAGE, There};
use super::rack::Rack;
use super::world::{Access, Touched, World};
use crate::space::STAGING_BYTES;
use crate::sync::Mutex;
use crate::table::CHUNK_BYTES;

/// The program's memory lies around the border of two chunks.
pub(super) const BASE: u64 = 40 * CHUNK_BYTES - 250 * PAGE;
/// Pages that the first thread of a process maps, unmaps and moves around.
const CHANGING: u64 = 360;
/// Pages behind them that stay mapped.
const STAYING: u64 = 160;
/// Pages behind those, where all other threads map and move what is theirs wherever there is room.
const SHARED: u64 = 96;
/// Threads that do so.
const MOVERS: u32 = 3;
/// Where the resident thread's things are.
pub(super) const STAGING: u64 = 80 * CHUNK_BYTES;
pub(super) const BADGE: u64 = 90 * CHUNK_BYTES;
/// Processes at most.
pub(super) const MEMORIES_MAX: usize = 4;
/// Threads of a process at most, for their numbers.
pub(super) const THREADS_MAX: u32 = 8;

/// One process's program.
#[derive(Clone)]
pub(super) struct Program {
    pub(super) world: Arc<World>,
    pub(super) rack: Arc<Mutex<Rack>>,
    pub(super) memory: usize,
    /// What each of its threads does so many times.
    pub(super) steps: u64,
    /// Whether a memory server may die.
    pub(super) kills: bool,
    pub(super) forks: bool,
    /// Whether several threads map and move memory at once.
    pub(super) moves: bool,
}

pub(super) fn staging() -> Range<u64> {
    STAGING..STAGING + STAGING_BYTES
}

fn at(page: u64) -> u64 {
    BASE + page * PAGE
}

impl Program {
    /// Maps what a program has when it begins.
    pub(super) fn begin(&self) {
        self.world.map(self.memory, at(20)..at(140));
        self.world.map(self.memory, at(200)..at(300));
        self.world.map(self.memory, at(CHANGING)..at(CHANGING + STAYING));
    }

    /// Runs the process to its end, its forked children included.
    pub(super) fn run(&self) {
        let second = self.clone();
        let second = shuttle::thread::spawn(move || second.thread(1));
        let movers = if self.moves { MOVERS } else { 0 };
        let movers: Vec<_> = (2..2 + movers)
            .map(|number| {
                let program = self.clone();
                shuttle::thread::spawn(move || program.mover(number))
            })
            .collect();
        let children = self.thread(0);
        second.join().unwrap();
        for mover in movers {
            mover.join().unwrap();
        }
        self.verify();
        for child in children {
            child.join().unwrap();
        }
    }

    /// Reads all memory, whose content is checked by that.
    pub(super) fn verify(&self) {
        let pages: Vec<u64> = self.world.kernel().memories[self.memory].pages.keys().copied().collect();
        // What other threads were moving about while the process was forked is nobody's in the child.
        let end = if self.memory == 0 { STAGING } else { at(CHANGING + STAYING) };
        for address in pages.into_iter().filter(|address| *address < end) {
            self.touch(0, address, Access::Read);
        }
        for address in (end..at(CHANGING + STAYING + SHARED)).step_by(PAGE as usize) {
            self.world.touch(self.memory, self.memory as u32 * THREADS_MAX, address, Access::Read);
        }
    }

    fn touch(&self, thread: u32, address: u64, access: Access) {
        let thread = self.memory as u32 * THREADS_MAX + thread;
        if self.world.touch(self.memory, thread, address, access) == Touched::Sigbus {
            let mut kernel = self.world.kernel();
            if !kernel.harm {
                kernel.unexplained.get_or_insert(address);
            }
        }
    }

    fn thread(&self, number: u32) -> Vec<shuttle::thread::JoinHandle<()>> {
        let mut children = Vec::new();
        for _ in 0..self.steps {
            self.world.dawdle();
            let choice = self.world.below(100);
            match choice {
                0..60 => self.walk(number),
                60..80 => self.touch(number, at(self.world.below(CHANGING + STAYING)), Access::Read),
                80..86 => self.discard(number),
                _ if number > 0 => self.walk(number),
                86..90 => self.unmap(),
                90..93 => self.map(),
                93..96 => self.remap(),
                96..98 if self.forks => children.extend(self.fork()),
                98 if self.kills && self.world.chance(4) => {
                    self.world.kernel().harm = true;
                    self.rack.lock().unwrap().kill(0);
                }
                _ => {}
            }
        }
        children
    }

    /// Goes over some pages in a stride, and reads or writes them.
    fn walk(&self, number: u32) {
        let (start, count, stride, writes) = {
            let rng = &mut self.world.kernel().rng;
            (rng.below(CHANGING + STAYING), 1 + rng.below(12), 1 + rng.below(2), rng.one_in(2))
        };
        for i in 0..count {
            let access = if writes { Access::Write(self.value()) } else { Access::Read };
            self.touch(number, at(start + i * stride), access);
        }
    }

    /// Something new to write; now and then zero.
    fn value(&self) -> u64 {
        let mut kernel = self.world.kernel();
        kernel.next_value += 1;
        if kernel.rng.one_in(8) { 0 } else { kernel.next_value }
    }

    /// `MADV_DONTNEED` on some pages: each thread in a part of its own, since to discard what another maps anew is madness.
    fn discard(&self, number: u32) {
        if number > 0 {
            let start = CHANGING + self.world.below(STAYING - 32);
            let end = start + 1 + self.world.below(32);
            self.world.remove(self.memory, self.memory as u32 * THREADS_MAX + number, at(start)..at(end));
        } else if let Some(range) = self.some_range() {
            self.world.remove(self.memory, self.memory as u32 * THREADS_MAX, range);
        }
    }

    /// A range within one mapping of the part that changes.
    fn some_range(&self) -> Option<Range<u64>> {
        let mut kernel = self.world.kernel();
        let start = at(kernel.rng.below(CHANGING));
        let wish = 1 + kernel.rng.below(60);
        let pages = &kernel.memories[self.memory].pages;
        let mapping = pages.get(&start)?.mapping;
        let same = |address: &u64| pages.get(address).is_some_and(|page| page.mapping == mapping);
        let end = at(CHANGING).min(start + wish * PAGE);
        let count = (start..end).step_by(PAGE as usize).take_while(same).count() as u64;
        Some(start..start + count * PAGE)
    }

    /// Room for `pages` pages in the part that changes.
    fn free_range(&self, pages: u64) -> Option<Range<u64>> {
        let mut kernel = self.world.kernel();
        let start = kernel.rng.below(CHANGING - pages);
        let taken = &kernel.memories[self.memory].pages;
        let free = |start: u64| taken.range(at(start)..at(start + pages)).next().is_none();
        let start = (start..CHANGING - pages).find(|&start| free(start))?;
        Some(at(start)..at(start + pages))
    }

    fn unmap(&self) {
        if let Some(range) = self.some_range() {
            self.world.unmap(self.memory, self.memory as u32 * THREADS_MAX, range);
        }
    }

    fn map(&self) {
        let pages = 1 + self.world.below(60);
        if let Some(range) = self.free_range(pages) {
            self.world.map(self.memory, range);
        }
    }

    fn remap(&self) {
        let Some(range) = self.some_range() else { return };
        let Some(to) = self.free_range((range.end - range.start) / PAGE) else { return };
        self.world.remap(self.memory, self.memory as u32 * THREADS_MAX, range, to, true);
    }

    /// A thread that has mappings of its own, and no place.
    fn mover(&self, number: u32) {
        let thread = self.memory as u32 * THREADS_MAX + number;
        let room = at(CHANGING + STAYING)..at(CHANGING + STAYING + SHARED);
        let mut mine: Vec<Range<u64>> = Vec::new();
        for _ in 0..self.steps {
            self.world.dawdle();
            let index = self.world.below(mine.len().max(1) as u64) as usize;
            match self.world.below(8) {
                0 | 1 if mine.len() < 2 => {
                    let len = (1 + self.world.below(12)) * PAGE;
                    mine.extend(self.world.map_anywhere(self.memory, &room, len));
                }
                _ if mine.is_empty() => {}
                0..4 => {
                    for address in mine[index].clone().step_by(PAGE as usize) {
                        let access =
                            if self.world.chance(2) { Access::Write(self.value()) } else { Access::Read };
                        self.touch(number, address, access);
                    }
                }
                4 | 5 => {
                    let range = mine[index].clone();
                    let len = range.end - range.start;
                    // Onto a mapping made for it, or wherever there is room.
                    let fixed = self.world.chance(2);
                    let place = match fixed {
                        true => self.world.map_anywhere(self.memory, &room, len),
                        false => Some(room.clone()),
                    };
                    let Some(place) = place else { continue };
                    if fixed && self.world.chance(2) {
                        self.touch(number, place.start, Access::Write(self.value()));
                    }
                    let to = self.world.remap(self.memory, thread, range, place, fixed);
                    if let Some(to) = to {
                        mine[index] = to..to + len;
                    }
                }
                6 => {
                    let range = mine.swap_remove(index);
                    let middle = range.start + self.world.below((range.end - range.start) / PAGE) * PAGE;
                    let (gone, kept) = match self.world.chance(2) {
                        true => (range.start..middle, middle..range.end),
                        false => (middle..range.end, range.start..middle),
                    };
                    if gone.start < gone.end {
                        self.world.unmap(self.memory, thread, gone);
                    }
                    if kept.start < kept.end {
                        mine.push(kept);
                    }
                }
                _ => self.world.remove(self.memory, thread, mine[index].clone()),
            }
        }
        for range in mine {
            for address in range.clone().step_by(PAGE as usize) {
                self.touch(number, address, Access::Read);
            }
            self.world.unmap(self.memory, thread, range);
        }
    }

    fn fork(&self) -> Option<shuttle::thread::JoinHandle<()>> {
        if self.world.kernel().memories.len() >= MEMORIES_MAX {
            return None;
        }
        let memory = self.world.fork(self.memory, self.memory as u32 * THREADS_MAX, &staging(), BADGE);
        let child = Self { memory, steps: self.steps / 2, ..self.clone() };
        Some(shuttle::thread::spawn(move || {
            child.run();
            child.world.exit(child.memory);
        }))
    }
}

/// Puts content into some pages before anybody manages them.
pub(super) fn prefill(world: &World, memory: usize) {
    let mut kernel = world.kernel();
    for number in 20..120 {
        if kernel.rng.one_in(2) {
            kernel.next_value += 1;
            let value = kernel.next_value;
            let page = kernel.memories[memory].pages.get_mut(&at(number)).unwrap();
            page.there = There::Present { value, exclusive: true };
            page.truth = value;
        }
    }
}
