//! The resident thread as the pager sees it: system calls in, results out.
//!
//! Calls go in batches; one batch is under way at a time and its submitter waits for it ([`Session`] holds the lock). The
//! **gate** is the one thing that another thread touches meanwhile: a call marked as gated runs only while the gate is
//! open, and [`Resident::close_gate`] returns only when no gated call is running. Whoever closes it may then cancel
//! the gated rest of the batch. The program could scribble on the ring: results are numbers to be checked, never
//! pointers, and a thread that does not answer is noticed by its socket.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rackmem_uapi::resident::{
    CALL_BYTES, CALLS_MAX, CALLS_OFFSET, CANCEL_OFFSET, COMPLETED_OFFSET, COUNT_OFFSET, GATE_OFFSET, GATED,
    RING_BYTES, SCRATCH_OFFSET, SUBMITTED_OFFSET,
};
use rackmem_uapi::shared::SharedMemory;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::IoSlice;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use rustix::thread::futex;

use crate::gate::Gate;
use crate::{InjectError, procfs, start};

/// One system call to run in the process.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its number on x86-64.
    pub number: i64,
    /// Its arguments; pointers are addresses in the process.
    pub arguments: [u64; 6],
    /// Whether it may only run while the gate is open.
    pub gated: bool,
}

impl Call {
    /// A call that runs in any case.
    pub const fn new(number: i64, arguments: [u64; 6]) -> Self {
        Self { number, arguments, gated: false }
    }
}

/// A thread inside another process that runs system calls for us.
pub struct Resident {
    pid: u32,
    thread: u32,
    ring: SharedMemory,
    ring_address: u64,
    code_address: u64,
    line: Line,
    pidfd: OwnedFd,
    /// Number of the newest batch.
    submitted: Mutex<u32>,
}

/// Over what descriptors travel, and what tells of the thread's end.
enum Line {
    /// A pair of sockets; the thread's end is in its own descriptor table.
    Socket { ours: OwnedFd, theirs: i32 },
    /// A thread that another pager has put there: its descriptors are reached by the thread's pidfd (Linux 6.9).
    Inherited(OwnedFd),
}

impl Line {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Socket { ours, .. } => ours.as_fd(),
            Self::Inherited(thread) => thread.as_fd(),
        }
    }

    /// What poll says when the thread has ended.
    fn end(&self) -> PollFlags {
        match self {
            Self::Socket { .. } => PollFlags::RDHUP,
            Self::Inherited(_) => PollFlags::IN,
        }
    }
}

/// Exclusive use of the resident thread.
pub struct Session<'a> {
    resident: &'a Resident,
    submitted: MutexGuard<'a, u32>,
}

/// Priority of the resident thread, that of the pager's threads.
const NICE: i32 = -10;
/// Layout of a `struct msghdr` with one `iovec` and one descriptor, in the scratch area.
const MESSAGE_BYTES: usize = 128;
/// Behind it stays free for callers.
const SCRATCH_FREE: usize = SCRATCH_OFFSET + MESSAGE_BYTES;

impl Resident {
    #[expect(clippy::too_many_arguments, reason = "called once, by the way in")]
    pub(crate) fn new(
        pid: u32,
        thread: u32,
        ring: SharedMemory,
        ring_address: u64,
        code_address: u64,
        socket: OwnedFd,
        pidfd: OwnedFd,
        remote_socket: i32,
    ) -> Self {
        Self {
            pid,
            thread,
            ring,
            ring_address,
            code_address,
            line: Line::Socket { ours: socket, theirs: remote_socket },
            pidfd,
            submitted: Mutex::new(0),
        }
    }

    /// The process that it lives in.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its thread id.
    pub fn thread(&self) -> u32 {
        self.thread
    }

    /// The process, as a descriptor that becomes readable when it ends.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The ring, for the thread to hold: whoever takes it over maps it again.
    pub fn ring(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Address of the ring in the process.
    pub fn ring_address(&self) -> u64 {
        self.ring_address
    }

    /// Address of the thread's code in the process.
    pub fn code_address(&self) -> u64 {
        self.code_address
    }

    /// A thread that another pager has put there and left: `line` is its pidfd (`PIDFD_THREAD`), and `ring` what that pager
    /// shared with it. What it has been told to do it still does; gated calls are called off, and the gate is open. On
    /// return none of them is running.
    pub fn inherit(
        pid: u32,
        thread: u32,
        ring: OwnedFd,
        (ring_address, code_address): (u64, u64),
        line: OwnedFd,
    ) -> Result<Self, InjectError> {
        let ring = SharedMemory::map(ring, RING_BYTES)
            .map_err(InjectError::local("mapping the resident thread's ring"))?;
        let submitted = ring.half_word(SUBMITTED_OFFSET).load(Acquire);
        let pidfd = start::open_pidfd(pid)?;
        let submitted = Mutex::new(submitted);
        let line = Line::Inherited(line);
        let resident = Self { pid, thread, ring, ring_address, code_address, line, pidfd, submitted };
        resident.gate().inherit(|| {
            std::thread::yield_now();
            resident.is_gone()
        });
        // Its pager may have ended between the two halves of a wake-up.
        let _ = futex::wake(resident.ring.half_word(SUBMITTED_OFFSET), futex::Flags::empty(), 1);
        resident.await_gated()?;
        Ok(resident)
    }

    /// Waits for the end of a batch of gated calls: none of those that are left runs, and it must be over before the gate
    /// is armed again. Any other batch may take as long as it likes.
    fn await_gated(&self) -> Result<(), InjectError> {
        let is_gated = self.ring.word(CALLS_OFFSET).load(Relaxed) & GATED != 0;
        if is_gated && self.ring.half_word(COUNT_OFFSET).load(Relaxed) > 0 {
            self.session().wait()?;
        }
        Ok(())
    }

    /// Takes the thread for a sequence of batches.
    pub fn session(&self) -> Session<'_> {
        // The number under the lock is valid whatever a panicking holder did.
        Session { resident: self, submitted: self.submitted.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Whether the thread has ended.
    pub fn is_gone(&self) -> bool {
        let (line, end) = (self.line.fd(), self.line.end());
        let mut fds = [PollFd::new(&line, end)];
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&none)).is_ok()
            && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | end)
    }

    /// Lets gated calls run again that are submitted from now on. To be called when a batch is planned: what is
    /// cancelled between planning and submission stays cancelled.
    pub fn arm(&self) {
        self.gate().arm();
    }

    fn gate(&self) -> Gate<'_, AtomicU32> {
        Gate { gate: self.ring.half_word(GATE_OFFSET), cancel: self.ring.half_word(CANCEL_OFFSET) }
    }

    /// Whether the gate was opened with `cancel` since [`Resident::arm`].
    pub fn is_cancelled(&self) -> bool {
        self.gate().is_cancelled()
    }

    /// Closes the gate: on return no gated call is running and none will start before [`Resident::open_gate`].
    pub fn close_gate(&self) {
        let begin = Instant::now();
        let mut spins = 0u32;
        self.gate().close(|| {
            spins += 1;
            if !spins.is_multiple_of(64) {
                std::hint::spin_loop();
                return false;
            }
            // The thread was preempted inside a call, or died there.
            std::thread::yield_now();
            begin.elapsed() > Duration::from_millis(10) && self.is_gone()
        });
    }

    /// Opens the gate again; with `cancel`, no gated call runs any more until [`Resident::arm`].
    pub fn open_gate(&self, cancel: bool) {
        self.gate().open(cancel);
    }

    /// Whether the process was told to stop (SIGSTOP, job control). The thread then answers only when it goes on.
    pub fn is_stopped(&self) -> bool {
        procfs::is_stopped(self.thread)
    }

    /// Both ends of the socket. A thread that was taken over has none: it holds all it needs.
    fn sockets(&self, what: &'static str) -> Result<(BorrowedFd<'_>, i32), InjectError> {
        match &self.line {
            Line::Socket { ours, theirs } => Ok((ours.as_fd(), *theirs)),
            Line::Inherited(_) => Err(InjectError::Local { what, source: io::ErrorKind::Unsupported.into() }),
        }
    }

    /// First calls after birth: leave the program's descriptors and directory alone, and have a name.
    pub(crate) fn settle(&self) -> Result<(), InjectError> {
        // It is on the path of evictions and must not queue behind a program that uses every CPU. Refused without
        // privilege.
        if let Some(thread) = rustix::process::Pid::from_raw(self.thread as i32) {
            let _ = rustix::process::setpriority_process(Some(thread), NICE);
        }
        let mut session = self.session();
        let Line::Socket { theirs: own, .. } = self.line else { return Ok(()) };
        let own = own as u64;
        let name = session.scratch_address(0);
        session.scratch_write(0, b"rackmem\0/\0");
        let mut results = Vec::new();
        let mut calls = Vec::with_capacity(4);
        if own > 0 {
            calls.push(Call::new(libc::SYS_close_range, [0, own - 1, 0, 0, 0, 0]));
        }
        calls.push(Call::new(libc::SYS_close_range, [own + 1, u32::MAX.into(), 0, 0, 0, 0]));
        let must = calls.len();
        calls.push(Call::new(libc::SYS_prctl, [libc::PR_SET_NAME as u64, name, 0, 0, 0, 0]));
        // Of its own, so that the program's can be unmounted.
        calls.push(Call::new(libc::SYS_chdir, [name + b"rackmem\0".len() as u64, 0, 0, 0, 0, 0]));
        session.run(&calls, &mut results)?;
        results.truncate(must);
        for &result in &results {
            check(self.pid, "close_range", result)?;
        }
        Ok(())
    }
}

impl Session<'_> {
    /// Address in the process of byte `offset` of the scratch area.
    pub fn scratch_address(&self, offset: usize) -> u64 {
        self.resident.ring_address + (SCRATCH_FREE + offset) as u64
    }

    /// Bytes in the scratch area.
    pub const fn scratch_len() -> usize {
        RING_BYTES - SCRATCH_FREE
    }

    /// Writes to the scratch area.
    pub fn scratch_write(&mut self, offset: usize, bytes: &[u8]) {
        self.resident.ring.write(SCRATCH_FREE + offset, bytes);
    }

    /// Reads from the scratch area.
    pub fn scratch_read(&self, offset: usize, bytes: &mut [u8]) {
        self.resident.ring.read(SCRATCH_FREE + offset, bytes);
    }

    /// Runs `calls` in order and stores each one's result (negative: error number) in `results`.
    pub fn run(&mut self, calls: &[Call], results: &mut Vec<i64>) -> Result<(), InjectError> {
        results.clear();
        self.wait()?;
        for part in calls.chunks(CALLS_MAX) {
            self.submit(part);
            self.wait()?;
            let ring = &self.resident.ring;
            results.extend(
                (0..part.len()).map(|i| ring.word(CALLS_OFFSET + i * CALL_BYTES + 56).load(Relaxed) as i64),
            );
        }
        Ok(())
    }

    /// Runs one call; a negative result becomes an error with the call's `name`.
    pub fn call(&mut self, name: &'static str, number: i64, arguments: [u64; 6]) -> Result<u64, InjectError> {
        let mut results = Vec::with_capacity(1);
        self.run(&[Call::new(number, arguments)], &mut results)?;
        check(self.resident.pid, name, results[0])
    }

    /// Ends the thread; returns when it has gone.
    pub fn exit(mut self) -> Result<(), InjectError> {
        self.submit(&[Call::new(libc::SYS_exit, [0; 6])]);
        while !self.resident.is_gone() {
            let line = self.resident.line.fd();
            let mut hang_up = [PollFd::new(&line, self.resident.line.end())];
            match poll(&mut hang_up, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    return Err(InjectError::Local {
                        what: "waiting for the thread's end",
                        source: errno.into(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Hands `fd` to the thread; gives its number there.
    pub fn give(&mut self, fd: BorrowedFd<'_>) -> Result<i32, InjectError> {
        let resident = self.resident;
        let (ours, theirs) = resident.sockets("handing over a descriptor")?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        rustix::net::sendmsg(ours, &[IoSlice::new(b"f")], &mut ancillary, SendFlags::NOSIGNAL).map_err(
            |errno| InjectError::Local { what: "handing over a descriptor", source: errno.into() },
        )?;
        self.write_message(None);
        let flags = libc::MSG_CMSG_CLOEXEC as u64;
        self.call("recvmsg", libc::SYS_recvmsg, [theirs as u64, self.message_address(), flags, 0, 0, 0])?;
        let mut number = [0; 4];
        self.resident.ring.read(SCRATCH_OFFSET + 96, &mut number);
        Ok(i32::from_ne_bytes(number))
    }

    /// Takes a copy of the thread's descriptor `number`.
    pub fn take(&mut self, number: i32) -> Result<OwnedFd, InjectError> {
        let resident = self.resident;
        let (ours, theirs) = resident.sockets("receiving a descriptor")?;
        self.write_message(Some(number));
        self.call("sendmsg", libc::SYS_sendmsg, [theirs as u64, self.message_address(), 0, 0, 0, 0])?;
        let failed = InjectError::local("receiving a descriptor");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut buffers = [rustix::io::IoSliceMut::new(&mut byte)];
        let received = rustix::net::recvmsg(ours, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        if let Err(errno) = received {
            return Err(failed(errno.into()));
        }
        let fd = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        fd.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))
    }

    fn message_address(&self) -> u64 {
        self.resident.ring_address + SCRATCH_OFFSET as u64
    }

    /// `msghdr` at 0, `iovec` at 56, one byte at 72, `cmsghdr` with one descriptor at 80.
    fn write_message(&mut self, fd: Option<i32>) {
        let base = self.message_address();
        let words = [0, 0, base + 56, 1, base + 80, 24, 0, base + 72, 1, u64::from(b'f')];
        for (i, word) in words.into_iter().enumerate() {
            self.resident.ring.write(SCRATCH_OFFSET + i * 8, &word.to_ne_bytes());
        }
        let mut control = [0; 24];
        if let Some(fd) = fd {
            control[..8].copy_from_slice(&20u64.to_ne_bytes());
            control[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
            control[12..16].copy_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
            control[16..20].copy_from_slice(&fd.to_ne_bytes());
        }
        self.resident.ring.write(SCRATCH_OFFSET + 80, &control);
    }

    /// The batch before must be done; only one that was taken over with the thread may not be.
    fn submit(&mut self, calls: &[Call]) {
        let ring = &self.resident.ring;
        for (i, call) in calls.iter().enumerate() {
            let at = CALLS_OFFSET + i * CALL_BYTES;
            let number = call.number as u64 | if call.gated { GATED } else { 0 };
            ring.word(at).store(number, Relaxed);
            for (word, &argument) in ring.words(at + 8, 6).iter().zip(&call.arguments) {
                word.store(argument, Relaxed);
            }
        }
        ring.half_word(COUNT_OFFSET).store(calls.len() as u32, Relaxed);
        *self.submitted = self.submitted.wrapping_add(1);
        ring.half_word(SUBMITTED_OFFSET).store(*self.submitted, Release);
        // A wake-up can only fail on a bad address, which this is not.
        let _ = futex::wake(ring.half_word(SUBMITTED_OFFSET), futex::Flags::empty(), 1);
    }

    fn wait(&self) -> Result<(), InjectError> {
        let completed = self.resident.ring.half_word(COMPLETED_OFFSET);
        // How often to look whether the thread is still there.
        let patience = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        loop {
            let seen = completed.load(Acquire);
            if seen == *self.submitted {
                return Ok(());
            }
            let _ = futex::wait(completed, futex::Flags::empty(), seen, Some(&patience));
            if completed.load(Acquire) != *self.submitted && self.resident.is_gone() {
                return Err(InjectError::ResidentGone(self.resident.pid));
            }
        }
    }
}

fn check(pid: u32, call: &'static str, result: i64) -> Result<u64, InjectError> {
    if result < 0 {
        let source = io::Error::from_raw_os_error(-result as i32);
        return Err(InjectError::Call { pid, call, source });
    }
    Ok(result as u64)
}
