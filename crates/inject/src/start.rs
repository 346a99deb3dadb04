//! The way in and the way out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use libc::{
    CLONE_FS, CLONE_SIGHAND, CLONE_SYSVSEM, CLONE_THREAD, CLONE_VM, MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED,
    PROT_EXEC, PROT_READ, PROT_WRITE,
};
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use rackmem_uapi::resident::{RING_BYTES, SCRATCH_OFFSET, code};
use rackmem_uapi::shared::SharedMemory;
use rustix::process::{Pid as RawPid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::InjectError;
use crate::resident::Resident;
use crate::tracee::{Tracee, wait};

const CODE_BYTES: u64 = 4096;
/// Where the name of the ring's memfd stands in the code page, behind the code.
const NAME_OFFSET: u64 = 2048;

/// A process that waits to replace itself by the program that is to be managed (`rackmem held`).
///
/// Seized before the exec, so that the new program's first instruction finds the resident thread in place.
pub struct Held {
    pid: u32,
}

impl Held {
    /// Seizes the waiting process. Must be followed by [`Held::wait_exec`] on the same thread.
    pub fn seize(pid: u32) -> Result<Self, InjectError> {
        ptrace::seize(
            Pid::from_raw(pid as i32),
            Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_TRACESYSGOOD,
        )
        .map_err(|errno| InjectError::Refused { pid, source: errno.into() })?;
        Ok(Self { pid })
    }

    /// Waits until the process has replaced itself and enters the new program, which stands still before its first
    /// instruction until [`Stopped::release`].
    pub fn wait_exec(self) -> Result<(Resident, Stopped), InjectError> {
        let thread = Pid::from_raw(self.pid as i32);
        loop {
            match wait(thread, None) {
                Ok(WaitStatus::PtraceEvent(_, _, event)) if event == libc::PTRACE_EVENT_EXEC => break,
                Ok(WaitStatus::PtraceEvent(..)) => ptrace::cont(thread, None),
                Ok(WaitStatus::Stopped(_, signal)) => ptrace::cont(thread, signal),
                _ => return Err(InjectError::Gone(self.pid)),
            }
            .map_err(|_| InjectError::Gone(self.pid))?;
        }
        let begin = Instant::now();
        let gone = |_| InjectError::Gone(self.pid);
        ptrace::syscall(thread, None).map_err(gone)?;
        match wait(thread, None) {
            Ok(WaitStatus::PtraceSyscall(_)) => {}
            _ => return Err(InjectError::Gone(self.pid)),
        }
        enter(self.pid, Tracee::prepare(self.pid, thread)?, begin)
    }
}

/// The thread through which a process was entered: it stands still until this is released or dropped, which must happen
/// on the thread that got it.
pub struct Stopped {
    tracee: Tracee,
    since: Instant,
}

impl Stopped {
    /// Lets the thread go on. Gives how long it stood still.
    pub fn release(self) -> Duration {
        self.tracee.release();
        self.since.elapsed()
    }
}

/// Puts a resident thread into process `pid`, of which one thread stands still until [`Stopped::release`].
pub fn start(pid: u32) -> Result<(Resident, Stopped), InjectError> {
    let since = Instant::now();
    enter(pid, Tracee::stop(pid)?, since)
}

/// Takes the last traces of `resident` out of its process: its code and its ring. The thread itself must have ended.
pub fn remove(resident: &Resident) -> Result<(), InjectError> {
    let mut tracee = Tracee::stop(resident.pid())?;
    tracee.call("munmap", libc::SYS_munmap, [resident.ring_address(), RING_BYTES as u64, 0, 0, 0, 0])?;
    tracee.call("munmap", libc::SYS_munmap, [resident.code_address(), CODE_BYTES, 0, 0, 0, 0])?;
    tracee.release();
    Ok(())
}

fn enter(pid: u32, mut tracee: Tracee, since: Instant) -> Result<(Resident, Stopped), InjectError> {
    let executable =
        [0, CODE_BYTES, (PROT_READ | PROT_EXEC) as u64, (MAP_PRIVATE | MAP_ANONYMOUS) as u64, u64::MAX, 0];
    let code_address = tracee.call("mmap", libc::SYS_mmap, executable)?;
    match build(pid, &mut tracee, code_address) {
        Ok(resident) => {
            resident.settle()?;
            Ok((resident, Stopped { tracee, since }))
        }
        Err(error) => {
            let _ = tracee.call("munmap", libc::SYS_munmap, [code_address, CODE_BYTES, 0, 0, 0, 0]);
            Err(error)
        }
    }
}

fn build(pid: u32, tracee: &mut Tracee, code_address: u64) -> Result<Resident, InjectError> {
    tracee.write(code_address, code())?;
    tracee.write(code_address + NAME_OFFSET, b"rackmem\0")?;
    let name = code_address + NAME_OFFSET;
    let memfd =
        tracee.call("memfd_create", libc::SYS_memfd_create, [name, libc::MFD_CLOEXEC.into(), 0, 0, 0, 0])?;
    let result = with_ring(pid, tracee, code_address, memfd);
    tracee.call("close", libc::SYS_close, [memfd, 0, 0, 0, 0, 0])?;
    result
}

fn with_ring(pid: u32, tracee: &mut Tracee, code_address: u64, memfd: u64) -> Result<Resident, InjectError> {
    let ring_len = RING_BYTES as u64;
    tracee.call("ftruncate", libc::SYS_ftruncate, [memfd, ring_len, 0, 0, 0, 0])?;
    let shared = [0, ring_len, (PROT_READ | PROT_WRITE) as u64, MAP_SHARED as u64, memfd, 0];
    let ring_address = tracee.call("mmap", libc::SYS_mmap, shared)?;
    let result = with_socket(pid, tracee, code_address, memfd, ring_address);
    if result.is_err() {
        tracee.call("munmap", libc::SYS_munmap, [ring_address, ring_len, 0, 0, 0, 0])?;
    }
    result
}

fn with_socket(
    pid: u32,
    tracee: &mut Tracee,
    code_address: u64,
    memfd: u64,
    ring_address: u64,
) -> Result<Resident, InjectError> {
    for (address, len) in [(ring_address, RING_BYTES as u64), (code_address, CODE_BYTES)] {
        tracee.call("madvise", libc::SYS_madvise, [address, len, libc::MADV_DONTFORK as u64, 0, 0, 0])?;
    }
    let kind = (libc::SOCK_STREAM | libc::SOCK_CLOEXEC) as u64;
    let pair_at = ring_address + SCRATCH_OFFSET as u64;
    tracee.call("socketpair", libc::SYS_socketpair, [libc::AF_UNIX as u64, kind, 0, pair_at, 0, 0])?;

    let pidfd = open_pidfd(pid)?;
    let fetched = fetch(pidfd.as_fd(), memfd as i32).and_then(|ring| SharedMemory::map(ring, RING_BYTES));
    let ring = fetched.map_err(InjectError::local("mapping the resident thread's ring"))?;
    let pair = ring.word(SCRATCH_OFFSET).load(std::sync::atomic::Ordering::Relaxed);
    let (ours, theirs) = (pair as u32 as i32, (pair >> 32) as i32);
    let socket =
        fetch(pidfd.as_fd(), ours).map_err(InjectError::local("taking the resident thread's socket"));

    let cloned = socket.and_then(|socket| {
        let flags = (CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM) as u64;
        let stack = ring_address + RING_BYTES as u64;
        tracee.syscall_at = code_address; // the new thread goes on behind this instruction
        let thread = tracee.call_with("clone", libc::SYS_clone, [flags, stack, 0, 0, 0, 0], |registers| {
            registers.r12 = ring_address;
            registers.r13 = 0;
        })?;
        Ok(Resident::new(pid, thread as u32, ring, ring_address, code_address, socket, pidfd, theirs))
    });
    for fd in [ours, theirs] {
        tracee.call("close", libc::SYS_close, [fd as u64, 0, 0, 0, 0, 0])?;
    }
    cloned
}

fn open_pidfd(pid: u32) -> Result<OwnedFd, InjectError> {
    let raw = RawPid::from_raw(pid as i32).ok_or(InjectError::Gone(pid))?;
    pidfd_open(raw, PidfdFlags::empty()).map_err(|_| InjectError::Gone(pid))
}

fn fetch(pidfd: BorrowedFd<'_>, fd: i32) -> io::Result<OwnedFd> {
    Ok(pidfd_getfd(pidfd, fd, PidfdGetfdFlags::empty())?)
}
