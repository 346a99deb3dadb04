//! One thread, stopped by ptrace, that runs system calls for us and goes on as if nothing had been.
//!
//! Injected calls run between syscall-entry and syscall-exit stops, which are no signals, with all signals blocked:
//! the program's handlers and dispositions are never touched. Before the registers are restored the thread is brought
//! into an interrupt stop, because only from there the kernel restarts a system call that the stop had interrupted. A
//! thread that has our registers is never let go, however long it takes to come back. If we are killed it finds the way back
//! itself (`guard.rs`); that needs an order: first registers, then the mask, and the other way round at the end.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::user_regs_struct;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rackmem_uapi::process::{set_signal_mask, signal_mask};
use rackmem_uapi::resident::GuardState;

use crate::guard::{self, Guard};
use crate::restart::{self, Again};
use crate::stop::{Stop, go, wait, wait_within};
use crate::{InjectError, procfs, seccomp};

/// How long one thread may take to stop. A thread that runs or sleeps stops within microseconds; one that waits for a
/// disk or for a vfork child may not stop at all, and then another thread is tried.
const STOP_MS_MAX: u64 = 200;

/// How long all of them may take together.
const STOP_ALL_MS_MAX: u64 = 600;

/// How long a thread that is ready to run, but not let because all CPUs are busy, may take to stop.
const READY_MS_MAX: u64 = 5000;

/// Code segment of 64-bit user code (`__USER_CS`, arch/x86/include/asm/segment.h). A 32-bit program cannot run our code.
const CODE_SEGMENT_64: u64 = 0x33;

/// Where a thread was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// On its way back from the kernel, by an interrupt: from here an interrupted call is restarted.
    Interrupt,
    /// Before or after a system call.
    SystemCall,
    /// Nowhere: it was let go to run a call.
    Nowhere,
}

/// A stopped thread. Dropping it puts everything back and lets it run.
pub(crate) struct Tracee {
    process: u32,
    thread: Pid,
    memory: File,
    saved: user_regs_struct,
    mask: u64,
    since: Instant,
    /// The process counts its threads as we do.
    pub(crate) is_in_our_namespace: bool,
    /// Address of a `syscall` instruction in the process: the guard's, if there is one.
    syscall_at: u64,
    guard: Option<Guard>,
    /// Its signals are blocked, by us.
    blocked: bool,
    /// The thread was told to stop (SIGSTOP) meanwhile; it is told again at the end.
    stop_pending: bool,
    at: At,
    restored: bool,
}

impl Tracee {
    /// Stops any thread of `process` that can be stopped. Runs on a tracer's thread, whose end lets go of the others.
    pub(crate) fn stop(process: u32) -> Result<Self, InjectError> {
        let candidates = procfs::candidates(process).map_err(|_| InjectError::Gone(process))?;
        let begin = Instant::now();
        for thread in candidates {
            if begin.elapsed() > Duration::from_millis(STOP_ALL_MS_MAX) {
                break;
            }
            let thread = Pid::from_raw(thread as i32);
            match ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD) {
                Ok(()) => {}
                Err(Errno::ESRCH) => continue,
                Err(Errno::EPERM) if procfs::is_zombie(thread.as_raw() as u32) => continue,
                Err(errno) => return Err(InjectError::Refused { pid: process, source: errno.into() }),
            }
            let since = Instant::now();
            if ptrace::interrupt(thread).is_ok() && wait_interrupted(thread).is_ok() {
                return Self::prepare(process, thread, since, At::Interrupt);
            }
        }
        if procfs::is_gone(process) {
            return Err(InjectError::Gone(process));
        }
        Err(InjectError::Busy(process, STOP_MS_MAX))
    }

    /// Takes over a thread that is stopped already: by an interrupt, or else at a syscall-exit stop.
    pub(crate) fn prepare(process: u32, thread: Pid, since: Instant, at: At) -> Result<Self, InjectError> {
        let result = Self::look(process, thread, since, at);
        if result.is_err() {
            // Nothing has been changed yet; only an interrupted call may have to begin again.
            if at == At::Interrupt {
                go_on(thread, Again::All);
            }
            let _ = ptrace::detach(thread, None);
        }
        let mut tracee = result?;
        tracee.guard = Guard::place(process, tracee.saved.rip, &tracee.memory, &tracee.way_back());
        tracee.syscall_at = match tracee.guard {
            Some(guard) => guard.address,
            None => tracee.find_syscall()?,
        };
        Ok(tracee)
    }

    fn look(process: u32, thread: Pid, since: Instant, at: At) -> Result<Self, InjectError> {
        let refused = |source: io::Error| InjectError::Refused { pid: process, source };
        // By the thread: a main thread that has ended has no memory any more.
        let memory =
            OpenOptions::new().read(true).write(true).open(format!("/proc/{thread}/mem")).map_err(refused)?;
        let saved = ptrace::getregs(thread).map_err(|errno| refused(errno.into()))?;
        let mask = signal_mask(thread.as_raw()).map_err(refused)?;
        if saved.cs != CODE_SEGMENT_64 {
            return Err(InjectError::NotX86_64(process));
        }
        let status =
            procfs::process_status(thread.as_raw() as u32).map_err(|_| InjectError::Gone(process))?;
        seccomp::check(process, thread, status.seccomp)?;
        let is_in_our_namespace = status.is_in_our_namespace;
        let (syscall_at, guard, blocked, stop_pending, restored) = (0, None, false, false, false);
        Ok(Self {
            process,
            thread,
            memory,
            saved,
            mask,
            since,
            is_in_our_namespace,
            syscall_at,
            guard,
            blocked,
            stop_pending,
            at,
            restored,
        })
    }

    /// The stopped thread.
    pub(crate) fn thread(&self) -> u32 {
        self.thread.as_raw() as u32
    }

    /// Since when it stands still.
    pub(crate) fn since(&self) -> Instant {
        self.since
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

    /// What brings the thread back if we are killed.
    pub(crate) fn way_back(&self) -> GuardState {
        guard::state(self.thread(), &restart::resumed(self.saved, Again::All), self.mask)
    }

    /// As [`Tracee::call`], with other registers, the instruction's address among them, set by `adjust` first.
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
        if !self.blocked {
            set_signal_mask(self.thread.as_raw(), u64::MAX)
                .map_err(|source| InjectError::Refused { pid: self.process, source })?;
            self.blocked = true;
        }
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
        if self.at != At::Interrupt {
            let _ = ptrace::interrupt(self.thread);
            let _ = self.wait_for_interrupt();
        }
        if self.blocked {
            let _ = set_signal_mask(self.thread.as_raw(), self.mask);
        }
        let _ = ptrace::setregs(self.thread, restart::resumed(self.saved, Again::All));
        if let Some(guard) = self.guard {
            guard.clear(&self.memory);
        }
        let _ = ptrace::detach(self.thread, None);
        if self.stop_pending && !procfs::is_continued(self.process) {
            let _ = nix::sys::signal::kill(Pid::from_raw(self.process as i32), Signal::SIGSTOP);
        }
    }

    /// Lets the thread come to the stop that it was interrupted for. It has our registers: there is no limit.
    fn wait_for_interrupt(&mut self) -> io::Result<()> {
        if self.at == At::SystemCall {
            go(self.thread, 0)?;
        }
        loop {
            match wait(self.thread)? {
                Stop::Event(_) => break,
                Stop::SystemCall => go(self.thread, 0)?,
                Stop::Signal(signal) => {
                    self.put_off(signal);
                    go(self.thread, 0)?;
                }
                Stop::Ended => return Err(io::ErrorKind::NotFound.into()),
            }
        }
        self.at = At::Interrupt;
        Ok(())
    }

    /// All signals but SIGSTOP are blocked. The process stops when we have left.
    fn put_off(&mut self, signal: i32) {
        self.stop_pending |= signal == libc::SIGSTOP;
    }

    fn run_to_syscall_stop(&mut self) -> Result<(), InjectError> {
        let gone = InjectError::Gone(self.process);
        self.at = At::Nowhere;
        loop {
            if ptrace::syscall(self.thread, None).is_err() {
                return Err(gone);
            }
            match self.wait_while_it_runs() {
                Ok(Stop::SystemCall) => {
                    self.at = At::SystemCall;
                    return Ok(());
                }
                Ok(Stop::Signal(signal)) => self.put_off(signal),
                Ok(Stop::Event(_)) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(InjectError::Stopped(self.process));
                }
                Ok(Stop::Ended) | Err(_) => return Err(gone),
            }
        }
    }

    /// Waits for the next stop. Fails if the thread sleeps instead, which no injected call does: its control group is frozen.
    fn wait_while_it_runs(&self) -> io::Result<Stop> {
        loop {
            match wait_within(self.thread, Duration::from_millis(STOP_MS_MAX)) {
                Err(error)
                    if error.kind() == io::ErrorKind::TimedOut
                        && procfs::state(self.thread()) != Some('S') => {}
                result => return result,
            }
        }
    }

    fn find_syscall(&self) -> Result<u64, InjectError> {
        let (vdso, others) =
            procfs::executable_mappings(self.thread()).map_err(|_| InjectError::Gone(self.process))?;
        for (start, end) in vdso.into_iter().chain(others) {
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

/// Has a thread that was interrupted and is about to be let go continue the call that it waited in.
pub(crate) fn go_on(thread: Pid, again: Again) {
    let Ok(registers) = ptrace::getregs(thread) else { return };
    let resumed = restart::resumed(registers, again);
    if resumed.rax != registers.rax {
        let _ = ptrace::setregs(thread, resumed);
    }
}

/// Waits until an interrupt takes effect; signals that arrive first are delivered as if nobody had been there.
fn wait_interrupted(thread: Pid) -> io::Result<()> {
    let begin = Instant::now();
    let is_ready = || procfs::state(thread.as_raw() as u32) == Some('R');
    loop {
        match wait_within(thread, Duration::from_millis(STOP_MS_MAX)) {
            Ok(Stop::Event(_)) => return Ok(()),
            Ok(Stop::Signal(signal)) => go(thread, signal)?,
            Ok(Stop::SystemCall) => go(thread, 0)?,
            Ok(Stop::Ended) => return Err(io::ErrorKind::NotFound.into()),
            Err(error) => {
                let is_late = begin.elapsed() > Duration::from_millis(READY_MS_MAX);
                if is_late || error.kind() != io::ErrorKind::TimedOut || !is_ready() {
                    return Err(error);
                }
            }
        }
    }
}
