//! What the pager asks of the kernel about one address space: from outside by its userfaultfd ([`Mapping`]), and from inside
//! by its resident thread ([`Inhabitant`]). Each method is one thing that the kernel does; what it means is decided
//! elsewhere. The simulator of the tests stands behind the same two traits.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rackmem_inject::{Call, InjectError, Resident, paused, remove};
use rackmem_types::PageData;
use rackmem_uapi::process::read_pages;
use rackmem_uapi::uffd::{self, Event, MOVE_BYTES, MOVE_DONE_OFFSET, Progress, UFFDIO_MOVE, move_argument};

use crate::core::PAGE;
use crate::estate::Place;
use crate::procfs;
use crate::space::{Inside, STAGING_BYTES};

/// An address space from outside. Errors and side effects are those of the ioctl of the same name, see
/// `rackmem_uapi::uffd`.
pub(crate) trait Mapping: AsFd + Send + Sync {
    /// Appends the messages that are there; they go through `place`, where they stay.
    fn read(&self, messages: &mut Vec<Event>, place: Option<Place<'_>>) -> io::Result<usize>;
    /// Fills the missing page at `address` with the page at `source` of this process, and wakes its waiters.
    fn copy(&self, address: u64, source: u64) -> Progress;
    /// As [`copy`](Self::copy), for `pages` pages at consecutive addresses; how far it came.
    fn copy_run(&self, address: u64, source: u64, pages: usize) -> Progress;
    /// Fills missing pages with zeros, and wakes their waiters.
    fn zeropage(&self, start: u64, len: u64) -> Progress;
    /// Makes a missing page give SIGBUS, and wakes its waiters.
    fn poison(&self, address: u64) -> Progress;
    /// Has whoever waits in the range take the fault again. It fails only if the address space is gone, and its waiters
    /// with it.
    fn wake(&self, start: u64, len: u64);
    /// From now on missing pages of the range are reported.
    fn register(&self, start: u64, len: u64) -> io::Result<()>;
    /// Missing pages of the range are the kernel's own affair again.
    fn unregister(&self, start: u64, len: u64) -> io::Result<()>;
    /// Whether a registered mapping is at `address`. `None` while a message is due.
    fn is_registered(&self, address: u64) -> Option<bool>;
    /// The mapping of a forked child, by the descriptor that came with the message.
    fn child(&self, uffd: OwnedFd) -> Arc<dyn Mapping>;
    /// Whether a page of process `pid`, which has this mapping, is missing.
    fn is_missing(&self, pid: u32, address: u64) -> io::Result<bool>;
}

/// A range to be moved within an address space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    pub(crate) to: u64,
    pub(crate) from: u64,
    pub(crate) pages: usize,
}

/// What became of a [`Move`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    /// Pages that moved, from the first on.
    pub(crate) pages: usize,
    /// Why the rest did not; 0 if all did.
    pub(crate) errno: i32,
}

/// Advice on a range: address, bytes, `MADV_…`.
pub(crate) type Advice = (u64, u64, i32);

/// An address space from inside.
pub(crate) trait Inhabitant: Send + Sync {
    /// The process.
    fn pid(&self) -> u32;
    /// The resident thread.
    fn thread(&self) -> u32;
    /// Where its ring and its code are, for one who takes it over.
    fn addresses(&self) -> (u64, u64);
    /// Whether the process ended or replaced its program.
    fn is_gone(&self) -> bool;
    /// A batch of moves is planned: what is cancelled from now on stays cancelled.
    fn arm(&self);
    /// Whether the gate was opened with `cancel` since.
    fn is_cancelled(&self) -> bool;
    /// On return no move is under way, and none begins before the gate is opened.
    fn close_gate(&self);
    /// Lets moves begin again; with `cancel`, none before the next `arm`.
    fn open_gate(&self, cancel: bool);
    /// Moves ranges by the userfaultfd `uffd` (its number inside), each when the gate is open.
    fn move_out(&self, uffd: i32, moves: &[Move], moved: &mut Vec<Moved>) -> Result<(), InjectError>;
    /// `madvise`, one result each.
    fn advise(&self, advice: &[Advice], results: &mut Vec<i64>) -> Result<(), InjectError>;
    /// Copies pages out. `false` if the memory cannot be read.
    fn read(&self, address: u64, pages: &mut [PageData]) -> bool;
    /// For each of `count` pages, whether it is there.
    fn present(&self, address: u64, count: usize) -> io::Result<Vec<bool>>;
    /// Runs `work` while the program stands still.
    fn paused(&self, work: &mut (dyn FnMut() + Send)) -> Result<(), InjectError>;
    /// Gives up the rights that the program has given up. `true`: there were some.
    fn follow_credentials(&self) -> Result<bool, InjectError>;
    /// Whether the process was told to stop; it then answers only when it goes on.
    fn is_stopped(&self) -> bool;
    /// Takes everything of ours out of the process, the thread last.
    fn leave(&self, inside: &Inside) -> Result<(), InjectError>;
}

/// The real userfaultfd.
pub(crate) struct Userfaultfd(pub(crate) OwnedFd);

impl AsFd for Userfaultfd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Mapping for Userfaultfd {
    fn read(&self, messages: &mut Vec<Event>, place: Option<Place<'_>>) -> io::Result<usize> {
        match place {
            Some(Place { memory, offset }) => uffd::read_into(self.as_fd(), memory, offset, messages),
            None => uffd::read(self.as_fd(), messages),
        }
    }

    fn copy(&self, address: u64, source: u64) -> Progress {
        uffd::copy(self.as_fd(), address, source, PAGE)
    }

    fn copy_run(&self, address: u64, source: u64, pages: usize) -> Progress {
        uffd::copy(self.as_fd(), address, source, pages as u64 * PAGE)
    }

    fn zeropage(&self, start: u64, len: u64) -> Progress {
        uffd::zeropage(self.as_fd(), start, len)
    }

    fn poison(&self, address: u64) -> Progress {
        uffd::poison(self.as_fd(), address, PAGE)
    }

    fn wake(&self, start: u64, len: u64) {
        let _ = uffd::wake(self.as_fd(), start, len);
    }

    fn register(&self, start: u64, len: u64) -> io::Result<()> {
        uffd::register_missing(self.as_fd(), start, len)
    }

    fn unregister(&self, start: u64, len: u64) -> io::Result<()> {
        uffd::unregister(self.as_fd(), start, len)
    }

    fn is_registered(&self, address: u64) -> Option<bool> {
        uffd::is_registered(self.as_fd(), address)
    }

    fn child(&self, uffd: OwnedFd) -> Arc<dyn Mapping> {
        Arc::new(Self(uffd))
    }

    fn is_missing(&self, pid: u32, address: u64) -> io::Result<bool> {
        Ok(!procfs::present(pid, address, 1)?[0])
    }
}

impl Inhabitant for Resident {
    fn pid(&self) -> u32 {
        self.pid()
    }

    fn thread(&self) -> u32 {
        self.thread()
    }

    fn addresses(&self) -> (u64, u64) {
        (self.ring_address(), self.code_address())
    }

    fn is_gone(&self) -> bool {
        self.is_gone()
    }

    fn arm(&self) {
        self.arm();
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled()
    }

    fn close_gate(&self) {
        self.close_gate();
    }

    fn open_gate(&self, cancel: bool) {
        self.open_gate(cancel);
    }

    fn move_out(&self, uffd: i32, moves: &[Move], moved: &mut Vec<Moved>) -> Result<(), InjectError> {
        moved.clear();
        let mut session = self.session();
        let mut calls = Vec::with_capacity(moves.len());
        for (i, &Move { to, from, pages }) in moves.iter().enumerate() {
            session.scratch_write(i * MOVE_BYTES, &move_argument(to, from, pages as u64 * PAGE));
            let place = session.scratch_address(i * MOVE_BYTES);
            let arguments = [uffd as u64, UFFDIO_MOVE.into(), place, 0, 0, 0];
            calls.push(Call { number: libc::SYS_ioctl, arguments, gated: true });
        }
        let mut results = Vec::with_capacity(moves.len());
        session.run(&calls, &mut results)?;
        moved.extend(moves.iter().zip(results).enumerate().map(|(i, (wish, result))| {
            let mut done = [0; 8];
            session.scratch_read(i * MOVE_BYTES + MOVE_DONE_OFFSET, &mut done);
            let done = (i64::from_ne_bytes(done).max(0) as u64 / PAGE) as usize;
            let pages = if result == 0 { wish.pages } else { done.min(wish.pages) };
            Moved { pages, errno: -result as i32 }
        }));
        Ok(())
    }

    fn advise(&self, advice: &[Advice], results: &mut Vec<i64>) -> Result<(), InjectError> {
        let call = |&(address, len, advice): &Advice| {
            Call::new(libc::SYS_madvise, [address, len, advice as u64, 0, 0, 0])
        };
        let calls: Vec<Call> = advice.iter().map(call).collect();
        self.session().run(&calls, results)
    }

    fn read(&self, address: u64, pages: &mut [PageData]) -> bool {
        let read = read_pages(self.thread(), address, pages);
        let all = matches!(read, Ok(count) if count == pages.len());
        if !all {
            tracing::debug!(pid = self.pid(), ?read, "leaving pages could not be read");
        }
        all
    }

    fn present(&self, address: u64, count: usize) -> io::Result<Vec<bool>> {
        procfs::present(self.thread(), address, count)
    }

    fn paused(&self, work: &mut (dyn FnMut() + Send)) -> Result<(), InjectError> {
        paused(self.pid(), self.thread(), work)
    }

    fn follow_credentials(&self) -> Result<bool, InjectError> {
        self.follow_credentials()
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped()
    }

    fn leave(&self, inside: &Inside) -> Result<(), InjectError> {
        let mut session = self.session();
        session.call("munmap", libc::SYS_munmap, [inside.staging, STAGING_BYTES, 0, 0, 0, 0])?;
        session.call("munmap", libc::SYS_munmap, [inside.badge, PAGE, 0, 0, 0, 0])?;
        session.exit()?;
        remove(self)
    }
}
