//! The way in and the way out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use nix::sys::ptrace::{self, Options};
use nix::unistd::Pid;
use rackmem_uapi::resident::{GuardState, RING_BYTES, SCRATCH_OFFSET, code};
use rackmem_uapi::shared::SharedMemory;
use rustix::process::{Pid as RawPid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::needs::{CLONE_FLAGS, CODE_BYTES, EXECUTABLE, PRIVATE, SOCKET_KIND, WRITABLE};
use crate::resident::Resident;
use crate::stop::{Stop, go, wait};
use crate::tracee::{At, Tracee};
use crate::tracer::{self, Stopped};
use crate::{InjectError, procfs};

/// Where the name of the ring's memfd stands in the code page, behind the code.
const NAME_OFFSET: u64 = 2048;

/// How long another process may have the same memory before that is said: a child that is about to begin its own program
/// has it for a millisecond or two.
const SHARED_MS_MAX: u64 = 200;

/// A process that waits to replace itself by the program that is to be managed (`rackmem held`).
///
/// Seized before the exec, so that the new program's first instruction finds the resident thread in place.
pub struct Held {
    entered: Receiver<Result<(Resident, Stopped), InjectError>>,
}

impl Held {
    /// Seizes the waiting process. Must be followed by [`Held::wait_exec`].
    pub fn seize(pid: u32) -> Result<Self, InjectError> {
        let (seized, is_seized) = sync_channel(1);
        let (send, entered) = sync_channel(1);
        tracer::spawn(move || {
            let _ = send.send(tracer::hold(move || {
                let options = Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_TRACESYSGOOD;
                let result = ptrace::seize(Pid::from_raw(pid as i32), options);
                let _ = seized.send(result);
                result.map_err(|errno| InjectError::Refused { pid, source: errno.into() })?;
                enter_at_exec(pid)
            }));
        })?;
        match is_seized.recv() {
            Ok(Ok(())) => Ok(Self { entered }),
            // It says why.
            _ => Err(entered.recv().ok().and_then(Result::err).unwrap_or_else(tracer::ended)),
        }
    }

    /// Waits until the process has replaced itself and enters the new program, which stands still before its first
    /// instruction until [`Stopped::release`].
    pub fn wait_exec(self) -> Result<(Resident, Stopped), InjectError> {
        self.entered.recv().unwrap_or_else(|_| Err(tracer::ended()))
    }
}

fn enter_at_exec(pid: u32) -> Result<(Resident, Tracee), InjectError> {
    let thread = Pid::from_raw(pid as i32);
    loop {
        match wait(thread) {
            Ok(Stop::Event(libc::PTRACE_EVENT_EXEC)) => break,
            Ok(Stop::Event(_) | Stop::SystemCall) => go(thread, 0),
            Ok(Stop::Signal(signal)) => go(thread, signal),
            Ok(Stop::Ended) | Err(_) => return Err(InjectError::Gone(pid)),
        }
        .map_err(|_| InjectError::Gone(pid))?;
    }
    let since = Instant::now();
    ptrace::syscall(thread, None).map_err(|_| InjectError::Gone(pid))?;
    if !matches!(wait(thread), Ok(Stop::SystemCall)) {
        return Err(InjectError::Gone(pid));
    }
    enter(pid, Tracee::prepare(pid, thread, since, At::SystemCall)?)
}

/// Puts a resident thread into process `pid`, of which one thread stands still until [`Stopped::release`].
pub fn start(pid: u32) -> Result<(Resident, Stopped), InjectError> {
    await_own_memory(pid)?;
    tracer::hold(move || {
        if procfs::is_stopped(pid) {
            return Err(InjectError::Stopped(pid));
        }
        enter(pid, Tracee::stop(pid)?)
    })
}

/// Takes the last traces of `resident` out of its process: its code and its ring. The thread itself must have ended.
pub fn remove(resident: &Resident) -> Result<(), InjectError> {
    tracer::run(|| {
        let mut tracee = Tracee::stop(resident.pid())?;
        unmap(&mut tracee, resident.ring_address(), RING_BYTES as u64)?;
        unmap(&mut tracee, resident.code_address(), CODE_BYTES)?;
        tracee.release();
        Ok(())
    })
}

/// Ends `resident` and takes it out of its process: for one who entered and then could not go on. The userfaultfds that it
/// holds close with it. The process must not stand still.
pub fn dismiss(resident: &Resident) -> Result<(), InjectError> {
    match resident.session().exit().and_then(|()| remove(resident)) {
        Err(InjectError::Gone(_) | InjectError::ResidentGone(_)) => Ok(()),
        result => result,
    }
}

/// Memory that two processes have would be lost to one when the other ends. As a rule it is a child before its exec.
fn await_own_memory(pid: u32) -> Result<(), InjectError> {
    let begin = Instant::now();
    loop {
        match procfs::shares_memory(pid) {
            None => return Ok(()),
            Some(other) if begin.elapsed() > Duration::from_millis(SHARED_MS_MAX) => {
                return Err(InjectError::Shared { pid, other });
            }
            Some(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn unmap(tracee: &mut Tracee, address: u64, len: u64) -> Result<u64, InjectError> {
    tracee.call("munmap", libc::SYS_munmap, [address, len, 0, 0, 0, 0])
}

fn close(tracee: &mut Tracee, fd: u64) -> Result<u64, InjectError> {
    tracee.call("close", libc::SYS_close, [fd, 0, 0, 0, 0, 0])
}

fn enter(pid: u32, mut tracee: Tracee) -> Result<(Resident, Tracee), InjectError> {
    let executable = [0, CODE_BYTES, EXECUTABLE, PRIVATE, u64::MAX, 0];
    let code_address = tracee.call("mmap", libc::SYS_mmap, executable)?;
    match build(pid, &mut tracee, code_address) {
        Ok(resident) => match resident.settle() {
            Ok(()) => Ok((resident, tracee)),
            Err(error) => {
                if resident.session().exit().is_ok() {
                    let _ = unmap(&mut tracee, resident.ring_address(), RING_BYTES as u64);
                    let _ = unmap(&mut tracee, code_address, CODE_BYTES);
                }
                Err(error)
            }
        },
        Err(error) => {
            let _ = unmap(&mut tracee, code_address, CODE_BYTES);
            Err(error)
        }
    }
}

fn build(pid: u32, tracee: &mut Tracee, code_address: u64) -> Result<Resident, InjectError> {
    tracee.write(code_address, code())?;
    let state = (code().len() - GuardState::BYTES) as u64;
    tracee.write(code_address + state, &tracee.way_back().bytes())?;
    tracee.write(code_address + NAME_OFFSET, b"rackmem\0")?;
    let name = code_address + NAME_OFFSET;
    let memfd =
        tracee.call("memfd_create", libc::SYS_memfd_create, [name, libc::MFD_CLOEXEC.into(), 0, 0, 0, 0])?;
    let result = with_ring(pid, tracee, code_address, memfd);
    close(tracee, memfd)?;
    result
}

fn with_ring(pid: u32, tracee: &mut Tracee, code_address: u64, memfd: u64) -> Result<Resident, InjectError> {
    let ring_len = RING_BYTES as u64;
    tracee.call("ftruncate", libc::SYS_ftruncate, [memfd, ring_len, 0, 0, 0, 0])?;
    let shared = [0, ring_len, WRITABLE, libc::MAP_SHARED as u64, memfd, 0];
    let ring_address = tracee.call("mmap", libc::SYS_mmap, shared)?;
    let result = with_socket(pid, tracee, code_address, memfd, ring_address);
    if result.is_err() {
        unmap(tracee, ring_address, ring_len)?;
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
    let pidfd = open_pidfd(pid)?;
    let descriptors = descriptors_of(tracee.thread(), &pidfd);
    let fetched =
        fetch(descriptors.as_fd(), memfd as i32).and_then(|ring| SharedMemory::map(ring, RING_BYTES));
    let ring = fetched.map_err(InjectError::local("mapping the resident thread's ring"))?;

    let pair_at = ring_address + SCRATCH_OFFSET as u64;
    tracee.call("socketpair", libc::SYS_socketpair, [libc::AF_UNIX as u64, SOCKET_KIND, 0, pair_at, 0, 0])?;
    let pair = ring.word(SCRATCH_OFFSET).load(std::sync::atomic::Ordering::Relaxed);
    let (ours, theirs) = (pair as u32 as i32, (pair >> 32) as i32);
    let socket =
        fetch(descriptors.as_fd(), ours).map_err(InjectError::local("taking the resident thread's socket"));
    let cloned = socket.and_then(|socket| {
        let thread = clone(pid, tracee, code_address, ring_address)?;
        Ok(Resident::new(pid, thread, ring, ring_address, code_address, socket, pidfd, theirs))
    });
    for fd in [ours, theirs] {
        close(tracee, fd as u64)?;
    }
    cloned
}

/// Makes the resident thread; gives its id.
fn clone(pid: u32, tracee: &mut Tracee, code_address: u64, ring_address: u64) -> Result<u32, InjectError> {
    let stack = ring_address + RING_BYTES as u64;
    let inner =
        tracee.call_with("clone", libc::SYS_clone, [CLONE_FLAGS, stack, 0, 0, 0, 0], |registers| {
            registers.rip = code_address; // the new thread goes on behind this instruction
            registers.r12 = ring_address;
            registers.r13 = 0;
        })?;
    let ours = tracee.is_in_our_namespace.then_some(inner as u32);
    ours.or_else(|| procfs::thread_by_inner_id(pid, inner as u32)).ok_or(InjectError::ResidentGone(pid))
}

pub(crate) fn open_pidfd(pid: u32) -> Result<OwnedFd, InjectError> {
    let raw = RawPid::from_raw(pid as i32).ok_or(InjectError::Gone(pid))?;
    pidfd_open(raw, PidfdFlags::empty()).map_err(|_| InjectError::Gone(pid))
}

/// Through what the stopped thread's descriptors are reached. A thread may have a table of its own, which can be named from
/// Linux 6.9 on; before that it is the main thread's.
fn descriptors_of(thread: u32, process: &OwnedFd) -> Descriptors<'_> {
    /// `PIDFD_THREAD` of `linux/pidfd.h`.
    const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL as u32);
    let opened = RawPid::from_raw(thread as i32).and_then(|thread| pidfd_open(thread, THREAD).ok());
    opened.map_or(Descriptors::Process(process.as_fd()), Descriptors::Thread)
}

enum Descriptors<'a> {
    Thread(OwnedFd),
    Process(BorrowedFd<'a>),
}

impl AsFd for Descriptors<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Thread(thread) => thread.as_fd(),
            Self::Process(process) => *process,
        }
    }
}

fn fetch(pidfd: BorrowedFd<'_>, fd: i32) -> io::Result<OwnedFd> {
    Ok(pidfd_getfd(pidfd, fd, PidfdGetfdFlags::empty())?)
}
