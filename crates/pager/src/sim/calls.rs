//! The simulated kernel behind the traits that the pager uses.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rackmem_inject::InjectError;
use rackmem_types::{PAGE_SIZE, PageData};
use rackmem_uapi::process::read_pages;
use rackmem_uapi::uffd::{Event, Progress};

use super::kernel::{Change, PAGE, There, Waiter, page_of, value_of};
use super::program::BADGE;
use super::world::{Access, World};
use crate::estate::Place;
use crate::kernel::{Advice, Inhabitant, Mapping, Move, Moved};
use crate::space::Inside;
use crate::sync::Mutex;

/// A simulated userfaultfd.
pub(super) struct SimMapping {
    pub(super) world: Arc<World>,
    pub(super) memory: usize,
    /// Stands for the userfaultfd's number, and nothing else.
    fd: OwnedFd,
}

impl SimMapping {
    pub(super) fn new(world: &Arc<World>, memory: usize, fd: OwnedFd) -> Self {
        world.kernel().by_fd.insert(fd.as_raw_fd(), memory);
        Self { world: Arc::clone(world), memory, fd }
    }
}

impl Drop for SimMapping {
    fn drop(&mut self) {
        // A run that failed is being taken down, and its locks with it.
        if std::thread::panicking() {
            return;
        }
        // The last descriptor of a userfaultfd closes: its memory is the kernel's own affair.
        let mut kernel = self.world.kernel();
        kernel.by_fd.remove(&self.fd.as_raw_fd());
        kernel.memories[self.memory].pages.values_mut().for_each(|page| page.registered = false);
        kernel.wake(self.memory, &(0..u64::MAX));
        drop(kernel);
        self.world.news.notify_all();
    }
}

impl AsFd for SimMapping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn progress((done, errno): (u64, Option<i32>)) -> Progress {
    Progress { done, error: errno.map(io::Error::from_raw_os_error) }
}

impl Mapping for SimMapping {
    fn read(&self, messages: &mut Vec<Event>, _: Option<Place<'_>>) -> io::Result<usize> {
        let mut kernel = self.world.kernel();
        // Messages that come while others are read wait for the next time.
        let mut most = if kernel.rng.one_in(4) { 1 + kernel.rng.below(3) as usize } else { usize::MAX };
        let before = messages.len();
        let mut born = Vec::new();
        let memory = &mut kernel.memories[self.memory];
        for waiter in memory.waiters.iter_mut().filter(|waiter| !waiter.reported) {
            if most == 0 {
                break;
            }
            most -= 1;
            waiter.reported = true;
            let Waiter { address, write, thread, .. } = *waiter;
            messages.push(Event::Fault { address, write, thread });
        }
        while most > 0
            && let Some((_, change)) = memory.changes.pop_front()
        {
            most -= 1;
            messages.push(match change {
                Change::Remove(start, end) => Event::Remove { start, end },
                Change::Unmap(start, end) => Event::Unmap { start, end },
                Change::Remap(from, to, len) => Event::Remap { from, to, len },
                Change::Fork(child) => {
                    let fd = self.world.fd();
                    born.push((fd.as_raw_fd(), child));
                    Event::Fork { child: fd }
                }
            });
        }
        if kernel.loud {
            println!("{} reads {:x?}", self.memory, &messages[before..]);
        }
        kernel.born.extend(born);
        drop(kernel);
        self.world.news.notify_all();
        Ok(messages.len() - before)
    }

    fn copy(&self, address: u64, source: u64) -> Progress {
        let mut data = [[0; PAGE_SIZE]];
        let read = read_pages(std::process::id(), source, &mut data);
        assert!(matches!(read, Ok(1)), "the source of a copy");
        // The number on a badge page is none of the program's content.
        let value = if address == BADGE { 0 } else { value_of(&data[0]) };
        let there = There::Present { value, exclusive: true };
        let result = self.world.kernel().fill(self.memory, address, PAGE, there, true);
        self.world.news.notify_all();
        progress(result)
    }

    fn copy_run(&self, address: u64, source: u64, pages: usize) -> Progress {
        let mut done = 0;
        for i in 0..pages as u64 {
            let progress = self.copy(address + i * PAGE, source + i * PAGE);
            done += progress.done;
            if progress.error.is_some() {
                return Progress { done, error: progress.error };
            }
        }
        Progress { done, error: None }
    }

    fn zeropage(&self, start: u64, len: u64) -> Progress {
        let there = There::Present { value: 0, exclusive: true };
        let result = self.world.kernel().fill(self.memory, start, len, there, false);
        self.world.news.notify_all();
        progress(result)
    }

    fn poison(&self, address: u64) -> Progress {
        let result = self.world.kernel().fill(self.memory, address, PAGE, There::Poisoned, false);
        self.world.news.notify_all();
        progress(result)
    }

    fn wake(&self, start: u64, len: u64) {
        self.world.kernel().wake(self.memory, &(start..start + len));
        self.world.news.notify_all();
    }

    fn is_registered(&self, address: u64) -> Option<bool> {
        let kernel = self.world.kernel();
        let memory = &kernel.memories[self.memory];
        (memory.changing == 0).then(|| memory.pages.get(&address).is_some_and(|page| page.registered))
    }

    fn register(&self, start: u64, len: u64) -> io::Result<()> {
        let mut kernel = self.world.kernel();
        kernel.tell(self.memory, "register", &(start..start + len));
        let mut any = false;
        for (_, page) in kernel.memories[self.memory].pages.range_mut(start..start + len) {
            page.registered = true;
            any = true;
        }
        if any { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) }
    }

    fn unregister(&self, start: u64, len: u64) -> io::Result<()> {
        let mut kernel = self.world.kernel();
        let range = start..start + len;
        kernel.tell(self.memory, "unregister", &range);
        for (_, page) in kernel.memories[self.memory].pages.range_mut(range.clone()) {
            page.registered = false;
        }
        kernel.wake(self.memory, &range);
        drop(kernel);
        self.world.news.notify_all();
        Ok(())
    }

    fn child(&self, uffd: OwnedFd) -> Arc<dyn Mapping> {
        let memory = self.world.kernel().born.remove(&uffd.as_raw_fd()).expect("a child was born");
        Arc::new(Self::new(&self.world, memory, uffd))
    }

    fn is_missing(&self, _pid: u32, address: u64) -> io::Result<bool> {
        let kernel = self.world.kernel();
        Ok(kernel.memories[self.memory].pages.get(&address).is_none_or(|page| page.there == There::Missing))
    }
}

/// A simulated resident thread.
pub(super) struct SimInhabitant {
    world: Arc<World>,
    memory: usize,
    /// One batch of calls at a time.
    session: Mutex<()>,
}

impl SimInhabitant {
    pub(super) fn new(world: &Arc<World>, memory: usize) -> Self {
        Self { world: Arc::clone(world), memory, session: Mutex::new(()) }
    }

    /// Spins until the gate is open, and puts it to `state`.
    fn gate(&self, state: u32) {
        loop {
            let gate = &mut self.world.kernel().memories[self.memory].gate;
            if *gate == 0 {
                *gate = state;
                return;
            }
        }
    }
}

impl Inhabitant for SimInhabitant {
    fn pid(&self) -> u32 {
        self.memory as u32
    }

    fn thread(&self) -> u32 {
        u32::MAX - self.memory as u32
    }

    fn addresses(&self) -> (u64, u64) {
        (0, 0)
    }

    fn is_gone(&self) -> bool {
        !self.world.kernel().memories[self.memory].alive
    }

    fn arm(&self) {
        self.world.kernel().memories[self.memory].cancelled = false;
    }

    fn is_cancelled(&self) -> bool {
        self.world.kernel().memories[self.memory].cancelled
    }

    fn close_gate(&self) {
        self.gate(2);
    }

    fn open_gate(&self, cancel: bool) {
        let mut kernel = self.world.kernel();
        let memory = &mut kernel.memories[self.memory];
        memory.cancelled |= cancel;
        memory.gate = 0;
    }

    fn move_out(&self, _uffd: i32, moves: &[Move], moved: &mut Vec<Moved>) -> Result<(), InjectError> {
        let _session = self.session.lock().unwrap();
        moved.clear();
        for &Move { to, from, pages } in moves {
            self.world.dawdle();
            self.gate(1);
            let mut kernel = self.world.kernel();
            if !kernel.memories[self.memory].alive {
                kernel.memories[self.memory].gate = 0;
                return Err(InjectError::ResidentGone(self.memory as u32));
            }
            let (pages, errno) = if kernel.memories[self.memory].cancelled {
                (0, libc::ECANCELED)
            } else {
                kernel.move_pages(self.memory, to, from, pages)
            };
            kernel.memories[self.memory].gate = 0;
            moved.push(Moved { pages, errno });
        }
        self.world.dawdle();
        Ok(())
    }

    fn advise(&self, advice: &[Advice], results: &mut Vec<i64>) -> Result<(), InjectError> {
        let _session = self.session.lock().unwrap();
        results.clear();
        for &(address, len, advice) in advice {
            let range = address..address + len;
            match advice {
                libc::MADV_POPULATE_WRITE => {
                    self.world.touch(self.memory, self.thread(), address, Access::Populate);
                }
                libc::MADV_DONTNEED => self.world.drop_pages(self.memory, self.thread(), range),
                other => panic!("advice {other}"),
            }
            results.push(0);
        }
        Ok(())
    }

    fn read(&self, address: u64, pages: &mut [PageData]) -> bool {
        let kernel = self.world.kernel();
        for (i, page) in pages.iter_mut().enumerate() {
            match kernel.memories[self.memory].pages.get(&(address + i as u64 * PAGE)).map(|page| page.there)
            {
                Some(There::Present { value, .. }) => *page = page_of(value),
                _ => return false,
            }
        }
        true
    }

    fn present(&self, address: u64, count: usize) -> io::Result<Vec<bool>> {
        let kernel = self.world.kernel();
        Ok(kernel.present(self.memory, address, count))
    }

    fn paused(&self, work: &mut (dyn FnMut() + Send)) -> Result<(), InjectError> {
        if !self.world.pause(self.memory) {
            return Err(InjectError::Busy(self.memory as u32, 0));
        }
        work();
        self.world.go_on(self.memory);
        Ok(())
    }

    fn follow_credentials(&self) -> Result<bool, InjectError> {
        Ok(false)
    }

    fn is_stopped(&self) -> bool {
        false
    }

    fn leave(&self, inside: &Inside) -> Result<(), InjectError> {
        let _session = self.session.lock().unwrap();
        let staging = inside.staging..inside.staging + crate::space::STAGING_BYTES;
        let mut kernel = self.world.kernel();
        kernel.memories[self.memory].pages.retain(|address, _| !staging.contains(address));
        Ok(())
    }
}
