//! Waits for the stops of a traced thread, and lets it go on with the signal that stopped it, whichever it is: real-time
//! signals are signals as well.

use std::io;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rackmem_uapi::process::resume;
use rustix::process::{Pid as RawPid, WaitOptions, WaitStatus, waitpid};

/// Why a thread stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At an event: an interrupt (which is also how a stopped process shows), an exec.
    Event(i32),
    /// Before or after a system call.
    SystemCall,
    /// Before this signal is delivered.
    Signal(i32),
    /// It does not: it has ended.
    Ended,
}

/// How long a stop is waited for before the CPU is given up: what one injected call takes when the thread has a CPU.
const SPIN: Duration = Duration::from_micros(15);

/// Waits for the next stop of `thread`.
pub(crate) fn wait(thread: Pid) -> io::Result<Stop> {
    loop {
        if let Some(stop) = look(thread, WaitOptions::empty())? {
            return Ok(stop);
        }
    }
}

/// Waits for the next stop of `thread`, or gives `TimedOut`. It polls: a stop is microseconds away, and a blocking wait
/// has no limit.
pub(crate) fn wait_within(thread: Pid, limit: Duration) -> io::Result<Stop> {
    let begin = Instant::now();
    loop {
        match look(thread, WaitOptions::NOHANG)? {
            Some(stop) => return Ok(stop),
            None if begin.elapsed() > limit => return Err(io::ErrorKind::TimedOut.into()),
            None if begin.elapsed() < SPIN => std::hint::spin_loop(),
            // Not a yield: where all CPUs are busy, one who slept is let in first.
            None => std::thread::sleep(Duration::from_micros(20)),
        }
    }
}

/// Lets a stopped thread go on, with `signal` delivered to it unless that is 0.
pub(crate) fn go(thread: Pid, signal: i32) -> io::Result<()> {
    resume(thread.as_raw(), signal)
}

fn look(thread: Pid, options: WaitOptions) -> io::Result<Option<Stop>> {
    /// Threads as well as processes, `linux/wait.h`.
    const WALL: WaitOptions = WaitOptions::from_bits_retain(libc::__WALL as u32);
    let thread = RawPid::from_raw(thread.as_raw()).ok_or(io::ErrorKind::InvalidInput)?;
    match waitpid(Some(thread), options | WALL) {
        Ok(status) => Ok(status.map(|(_, status)| meaning(status))),
        Err(rustix::io::Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn meaning(status: WaitStatus) -> Stop {
    /// Set beside SIGTRAP by `PTRACE_O_TRACESYSGOOD`.
    const SYSTEM_CALL: i32 = libc::SIGTRAP | 0x80;
    if !status.stopped() {
        return Stop::Ended;
    }
    let status = status.as_raw();
    match (status >> 16, status >> 8 & 0xff) {
        (0, SYSTEM_CALL) => Stop::SystemCall,
        (0, signal) => Stop::Signal(signal),
        (event, _) => Stop::Event(event),
    }
}
