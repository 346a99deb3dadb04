//! One thread, stopped by ptrace, that runs system calls for us and goes on as if nothing had been.
//!
//! Injected calls run between syscall-entry and syscall-exit stops, which are no signals, with all signals blocked:
//! the program's handlers and dispositions are never touched. Before the registers are restored the thread is brought
//! into an interrupt stop, because only from there the kernel restarts a system call that the stop had interrupted.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::user_regs_struct;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rackmem_uapi::process::{set_signal_mask, signal_mask};

use crate::{InjectError, procfs};

/// How long one thread may take to stop. A thread that runs or sleeps stops within microseconds; one that waits for a
/// disk or for a vfork child may not stop at all, and then another thread is tried.
const STOP_MS_MAX: u64 = 200;

/// Code segment of 64-bit user code (`__USER_CS`, arch/x86/include/asm/segment.h). A 32-bit program cannot run our code.
const CODE_SEGMENT_64: u64 = 0x33;

/// A stopped thread. Dropping it puts everything back and lets it run.
pub(crate) struct Tracee {
    process: u32,
    thread: Pid,
    memory: File,
    saved: user_regs_struct,
    mask: u64,
    /// Address of a `syscall` instruction in the process.
    pub(crate) syscall_at: u64,
    /// The thread was told to stop (SIGSTOP) meanwhile; it is told again at the end.
    stop_pending: bool,
    restored: bool,
}

impl Tracee {
    /// Stops any thread of `process` that can be stopped.
    pub(crate) fn stop(process: u32) -> Result<Self, InjectError> {
        let threads = procfs::threads(process).map_err(|_| InjectError::Gone(process))?;
        let mut refused = None;
        for thread in threads {
            let thread = Pid::from_raw(thread as i32);
            match ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD) {
                Ok(()) => {}
                Err(Errno::ESRCH) => continue,
                Err(errno) => {
                    refused = Some(errno);
                    break;
                }
            }
            let stopped = ptrace::interrupt(thread).is_ok() && wait_interrupted(thread).is_ok();
            if stopped {
                return Self::prepare(process, thread);
            }
            // It may stop just now; detaching needs a stop, so this is all that can be done for a stuck thread.
            let _ = ptrace::detach(thread, None);
        }
        match refused {
            Some(errno) => Err(InjectError::Refused { pid: process, source: errno.into() }),
            None => Err(InjectError::Busy(process, STOP_MS_MAX)),
        }
    }

    /// Takes over a thread that is at a syscall-exit stop already.
    pub(crate) fn prepare(process: u32, thread: Pid) -> Result<Self, InjectError> {
        let traced = |errno: Errno| InjectError::Refused { pid: process, source: errno.into() };
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{process}/mem"))
            .map_err(|source| InjectError::Refused { pid: process, source });
        let (memory, saved, mask) = match (memory, ptrace::getregs(thread), signal_mask(thread.as_raw())) {
            (Ok(memory), Ok(saved), Ok(mask)) => (memory, saved, mask),
            (memory, saved, mask) => {
                let _ = ptrace::detach(thread, None);
                memory?;
                saved.map_err(traced)?;
                return mask
                    .map_err(|source| InjectError::Refused { pid: process, source })
                    .map(|_| unreachable!());
            }
        };
        if saved.cs != CODE_SEGMENT_64 {
            let _ = ptrace::detach(thread, None);
            return Err(InjectError::NotX86_64(process));
        }
        let mut tracee = Self {
            process,
            thread,
            memory,
            saved,
            mask,
            syscall_at: 0,
            stop_pending: false,
            restored: false,
        };
        set_signal_mask(thread.as_raw(), u64::MAX)
            .map_err(|source| InjectError::Refused { pid: process, source })?;
        tracee.syscall_at = tracee.find_syscall()?;
        Ok(tracee)
    }

    /// Runs one system call in the thread. The outer error is ours, the inner one the call's.
    pub(crate) fn call(
        &mut self,
        name: &'static str,
        number: i64,
        arguments: [u64; 6],
    ) -> Result<u64, InjectError> {
        self.call_with(name, number, arguments, |_| {})
    }

    /// As [`Tracee::call`], with other registers set by `adjust` first.
    pub(crate) fn call_with(
        &mut self,
        name: &'static str,
        number: i64,
        arguments: [u64; 6],
        adjust: impl FnOnce(&mut user_regs_struct),
    ) -> Result<u64, InjectError> {
        let mut registers = self.saved;
        registers.rip = self.syscall_at;
        registers.rax = number as u64;
        registers.orig_rax = u64::MAX; // no system call is under way: nothing must be restarted here
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] = arguments;
        adjust(&mut registers);
        ptrace::setregs(self.thread, registers).map_err(|_| InjectError::Gone(self.process))?;
        self.run_to_syscall_stop()?;
        self.run_to_syscall_stop()?;
        let result = ptrace::getregs(self.thread).map_err(|_| InjectError::Gone(self.process))?.rax as i64;
        if (-4095..0).contains(&result) {
            let source = io::Error::from_raw_os_error(-result as i32);
            return Err(InjectError::Call { pid: self.process, call: name, source });
        }
        Ok(result as u64)
    }

    /// Writes to the process's memory, read-only pages included.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), InjectError> {
        self.memory.write_all_at(bytes, address).map_err(InjectError::local("writing the process's memory"))
    }

    /// Puts registers and signal mask back and lets the thread run.
    pub(crate) fn release(mut self) {
        self.restore();
    }

    fn restore(&mut self) {
        if std::mem::replace(&mut self.restored, true) {
            return;
        }
        // Every step may fail only because the process was killed meanwhile; then there is nothing to restore.
        let interrupted = ptrace::interrupt(self.thread).is_ok() && ptrace::cont(self.thread, None).is_ok();
        if interrupted && wait_interrupted(self.thread).is_ok() {
            let _ = ptrace::setregs(self.thread, self.saved);
        }
        let _ = set_signal_mask(self.thread.as_raw(), self.mask);
        let _ = ptrace::detach(self.thread, None);
        if self.stop_pending {
            let _ = nix::sys::signal::kill(Pid::from_raw(self.process as i32), Signal::SIGSTOP);
        }
    }

    fn run_to_syscall_stop(&mut self) -> Result<(), InjectError> {
        loop {
            ptrace::syscall(self.thread, None).map_err(|_| InjectError::Gone(self.process))?;
            match wait(self.thread, None) {
                Ok(WaitStatus::PtraceSyscall(_)) => return Ok(()),
                Ok(WaitStatus::Stopped(_, Signal::SIGSTOP)) => self.stop_pending = true,
                Ok(WaitStatus::Stopped(..) | WaitStatus::PtraceEvent(..)) => {}
                _ => return Err(InjectError::Gone(self.process)),
            }
        }
    }

    fn find_syscall(&self) -> Result<u64, InjectError> {
        let mappings =
            procfs::executable_mappings(self.process).map_err(|_| InjectError::Gone(self.process))?;
        for (start, end) in mappings {
            let mut code = vec![0; (end - start) as usize];
            let Ok(len) = self.memory.read_at(&mut code, start) else { continue };
            if let Some(at) = code[..len].windows(2).position(|bytes| bytes == [0x0f, 0x05]) {
                return Ok(start + at as u64);
            }
        }
        Err(InjectError::NoSyscall(self.process))
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Waits for the next stop of `thread`; polls, because a stop is microseconds away and a blocking wait has no timeout.
pub(crate) fn wait(thread: Pid, timeout: Option<Duration>) -> io::Result<WaitStatus> {
    let Some(timeout) = timeout else {
        return Ok(waitpid(thread, Some(WaitPidFlag::__WALL))?);
    };
    let begin = Instant::now();
    loop {
        match waitpid(thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive if begin.elapsed() > timeout => return Err(io::ErrorKind::TimedOut.into()),
            // Not a yield: where all CPUs are busy, one who slept is let in first.
            WaitStatus::StillAlive => std::thread::sleep(Duration::from_micros(20)),
            status => return Ok(status),
        }
    }
}

/// Waits until an interrupt takes effect; signals that arrive first are delivered as if nobody had been there.
fn wait_interrupted(thread: Pid) -> io::Result<()> {
    loop {
        match wait(thread, Some(Duration::from_millis(STOP_MS_MAX)))? {
            WaitStatus::PtraceEvent(..) => return Ok(()),
            WaitStatus::Stopped(_, signal) => ptrace::cont(thread, signal)?,
            WaitStatus::PtraceSyscall(_) => ptrace::cont(thread, None)?,
            _ => return Err(io::ErrorKind::NotFound.into()),
        }
    }
}
