//! What a simulated program can do to its memory, with all the waiting that the kernel makes it do.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::sync::{Condvar, Mutex, MutexGuard};

use super::kernel::{Change, Kernel, Memory, PAGE, There, Waiter};
use super::program::{MEMORIES_MAX, THREADS_MAX};

/// The simulated machine.
pub(super) struct World {
    kernel: Mutex<Kernel>,
    /// Something may have happened to somebody who waits.
    pub(super) news: Condvar,
    /// How often somebody dawdles: once in so many occasions.
    pub(super) dawdle_one_in: u64,
}

/// What a thread does with a page.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    Read,
    Write(u64),
    /// `MADV_POPULATE_WRITE`: the page becomes the process's own.
    Populate,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touched {
    Done,
    Sigsegv,
    Sigbus,
}

impl World {
    pub(super) fn new(seed: u64, dawdle_one_in: u64) -> Arc<Self> {
        let kernel = Mutex::new(Kernel::new(seed));
        Arc::new(Self { kernel, news: Condvar::new(), dawdle_one_in })
    }

    pub(super) fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap()
    }

    pub(super) fn chance(&self, one_in: u64) -> bool {
        self.kernel().rng.one_in(one_in)
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.kernel().rng.below(bound)
    }

    /// Now and then lets everybody else go on for a while.
    pub(super) fn dawdle(&self) {
        if self.chance(self.dawdle_one_in) {
            for _ in 0..self.below(40) {
                shuttle::thread::yield_now();
            }
        }
    }

    /// A descriptor that stands for a userfaultfd.
    pub(super) fn fd(&self) -> OwnedFd {
        rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()
    }

    /// One access of a thread, however often it must fault for it. What a read finds is checked.
    pub(super) fn touch(&self, memory: usize, thread: u32, address: u64, access: Access) -> Touched {
        let mut kernel = self.kernel();
        kernel.steps += 1;
        loop {
            kernel = self.news.wait_while(kernel, |kernel| kernel.memories[memory].paused).unwrap();
            let this = &mut kernel.memories[memory];
            let discarding = this.removing.iter().any(|(_, range)| range.contains(&address));
            let Some(page) = this.pages.get_mut(&address) else { return Touched::Sigsegv };
            match (page.there, access) {
                (There::Present { value, .. }, Access::Read) => {
                    let zero = value == 0 && (discarding || page.or_zero);
                    assert!(
                        value == page.truth || zero,
                        "memory {memory}, page {address:#x}: thread {thread} read {value} instead of {page:?}"
                    );
                    (page.truth, page.or_zero) = (value, false);
                    return Touched::Done;
                }
                (There::Present { .. }, Access::Write(value)) => {
                    page.there = There::Present { value, exclusive: true };
                    (page.truth, page.or_zero) = (value, false);
                    return Touched::Done;
                }
                (There::Present { value, .. }, Access::Populate) => {
                    page.there = There::Present { value, exclusive: true };
                    return Touched::Done;
                }
                (There::Poisoned, _) => return Touched::Sigbus,
                (There::Missing, _) if !page.registered => {
                    page.there = There::Present { value: 0, exclusive: true };
                    kernel.tell(memory, "is on its own at", &(address..address + PAGE));
                }
                (There::Missing, _) => {
                    let write = !matches!(access, Access::Read);
                    this.waiters.push(Waiter { thread, address, write, reported: false });
                    let waits = |kernel: &mut Kernel| {
                        let waiters = &kernel.memories[memory].waiters;
                        waiters.iter().any(|waiter| waiter.thread == thread)
                    };
                    kernel = self.news.wait_while(kernel, waits).unwrap();
                }
            }
        }
    }

    /// Queues a message of a change that has begun, and waits until it has been read.
    fn report<'a>(
        &'a self,
        mut kernel: MutexGuard<'a, Kernel>,
        memory: usize,
        thread: u32,
        change: Change,
    ) -> MutexGuard<'a, Kernel> {
        kernel.memories[memory].changes.push_back((thread, change));
        let unread = |kernel: &mut Kernel| {
            kernel.memories[memory].changes.iter().any(|&(waiting, _)| waiting == thread)
        };
        kernel = self.news.wait_while(kernel, unread).unwrap();
        // Only now, when the thread goes on, is the change over.
        let changing = &mut kernel.memories[memory].changing;
        *changing = changing.saturating_sub(1); // the process may have ended
        kernel
    }

    /// The kernel, once the process is not held still.
    fn running(&self, memory: usize) -> MutexGuard<'_, Kernel> {
        self.news.wait_while(self.kernel(), |kernel| kernel.memories[memory].paused).unwrap()
    }

    /// Holds the process still. `false`: one of its threads is in the middle of a change and cannot be stopped.
    pub(super) fn pause(&self, memory: usize) -> bool {
        let this = &mut self.kernel().memories[memory];
        this.paused = this.changing == 0 && this.removing.is_empty();
        this.paused
    }

    pub(super) fn go_on(&self, memory: usize) {
        self.kernel().memories[memory].paused = false;
        self.news.notify_all();
    }

    /// `MADV_DONTNEED` by the resident thread: the program still means its pages to have their content.
    pub(super) fn drop_pages(&self, memory: usize, thread: u32, range: Range<u64>) {
        let mut kernel = self.kernel();
        if Self::is_registered(&kernel, memory, &range) {
            kernel.memories[memory].changing += 1;
            kernel = self.report(kernel, memory, thread, Change::Remove(range.start, range.end));
        }
        kernel.tell(memory, "drop", &range);
        for (_, page) in kernel.memories[memory].pages.range_mut(range) {
            page.there = There::Missing;
        }
    }

    fn is_registered(kernel: &Kernel, memory: usize, range: &Range<u64>) -> bool {
        kernel.memories[memory].pages.range(range.clone()).any(|(_, page)| page.registered)
    }

    /// `MADV_DONTNEED`: reported first, done afterwards.
    pub(super) fn remove(&self, memory: usize, thread: u32, range: Range<u64>) {
        let mut kernel = self.running(memory);
        if Self::is_registered(&kernel, memory, &range) {
            let this = &mut kernel.memories[memory];
            this.removing.push((thread, range.clone()));
            this.changing += 1;
            // The two calls are concurrent, and either may count as the first, page by page.
            for child in this.forking.clone() {
                for (_, page) in kernel.memories[child].pages.range_mut(range.clone()) {
                    page.or_zero = true;
                }
            }
            kernel = self.report(kernel, memory, thread, Change::Remove(range.start, range.end));
            drop(kernel);
            self.dawdle();
            kernel = self.kernel();
        }
        kernel.zap(memory, range);
        kernel.memories[memory].removing.retain(|&(remover, _)| remover != thread);
    }

    /// `munmap`: done first, reported afterwards.
    pub(super) fn unmap(&self, memory: usize, thread: u32, range: Range<u64>) {
        let mut kernel = self.running(memory);
        let reported = Self::is_registered(&kernel, memory, &range);
        kernel.memories[memory].pages.retain(|address, _| !range.contains(address));
        kernel.tell(memory, "unmap", &range);
        if reported {
            kernel.memories[memory].changing += 1;
            drop(kernel);
            self.dawdle();
            drop(self.report(self.kernel(), memory, thread, Change::Unmap(range.start, range.end)));
        }
    }

    /// `mmap` at a place in `room` that the kernel chooses.
    pub(super) fn map_anywhere(&self, memory: usize, room: &Range<u64>, len: u64) -> Option<Range<u64>> {
        let mut kernel = self.running(memory);
        let start = kernel.free(memory, room, len)?;
        let range = start..start + len;
        kernel.tell(memory, "map", &range);
        kernel.map(memory, range.clone());
        Some(range)
    }

    /// `mmap` at a fixed address that is free.
    pub(super) fn map(&self, memory: usize, range: Range<u64>) {
        let mut kernel = self.running(memory);
        kernel.tell(memory, "map", &range);
        kernel.map(memory, range);
    }

    /// `mremap` to a place in `room` that the kernel chooses, or, with `MREMAP_FIXED`, to the start of `room`, where what is
    /// there is unmapped. Done first, and reported as the end of what was there, as a move and as the end of the old range.
    pub(super) fn remap(
        &self,
        memory: usize,
        thread: u32,
        range: Range<u64>,
        room: Range<u64>,
        fixed: bool,
    ) -> Option<u64> {
        let mut kernel = self.running(memory);
        let len = range.end - range.start;
        let to = if fixed { room.start } else { kernel.free(memory, &room, len)? };
        let place = to..to + len;
        let replaced = fixed && Self::is_registered(&kernel, memory, &place);
        let reported = Self::is_registered(&kernel, memory, &range);
        let this = &mut kernel.memories[memory];
        this.pages.retain(|address, _| !place.contains(address));
        for address in range.clone().step_by(PAGE as usize) {
            let page = this.pages.remove(&address).expect("a mapped page");
            assert!(this.pages.insert(address - range.start + to, page).is_none(), "moved upon another");
        }
        kernel.tell(memory, "remap from", &range);
        kernel.tell(memory, "remap to", &place);
        let mut reports = Vec::new();
        if replaced {
            reports.push(Change::Unmap(place.start, place.end));
        }
        if reported {
            reports.extend([Change::Remap(range.start, to, len), Change::Unmap(range.start, range.end)]);
        }
        kernel.memories[memory].changing += reports.len() as u32;
        drop(kernel);
        for change in reports {
            self.dawdle();
            drop(self.report(self.kernel(), memory, thread, change));
        }
        Some(to)
    }

    /// `fork`: the child, whose userfaultfd has been handed over by then.
    pub(super) fn fork(&self, memory: usize, thread: u32, without: &Range<u64>, badge: u64) -> usize {
        let mut kernel = self.running(memory);
        kernel.memories[memory].changing += 1;
        let child = kernel.forked(memory, without);
        kernel.tell(child, "forked", without);
        // MADV_WIPEONFORK
        kernel.memories[child].pages.get_mut(&badge).expect("the badge is mapped").there = There::Missing;
        kernel.memories[memory].forking.push(child);
        drop(kernel);
        self.dawdle();
        kernel = self.kernel();
        kernel.memories[memory].forking.retain(|&other| other != child);
        drop(self.report(kernel, memory, thread, Change::Fork(child)));
        child
    }

    /// The process ends, and whatever its resident thread waits for with it.
    pub(super) fn exit(&self, memory: usize) {
        let mut kernel = self.kernel();
        let this = &mut kernel.memories[memory];
        let program = |thread: u32| thread < MEMORIES_MAX as u32 * THREADS_MAX;
        assert!(
            !this.waiters.iter().any(|waiter| program(waiter.thread)),
            "a thread of the program still waits"
        );
        assert!(!this.changes.iter().any(|change| program(change.0)), "a change of the program is unread");
        *this = Memory { gate: this.gate, cancelled: this.cancelled, ..Memory::default() };
        drop(kernel);
        self.news.notify_all();
    }
}
