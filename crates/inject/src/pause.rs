//! Holds all threads of a process still for a moment, but the resident one.
//!
//! Kernels before 6.8 cannot take a page out of a program atomically. There the pager copies and drops pages while nothing
//! in the program runs; this is what makes it stand still.
//!
//! A thread that waits inside the kernel for a message to be read cannot be stopped; the end of the tracer lets it go
//! (`tracer.rs`).

use std::collections::HashSet;
use std::time::Duration;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::restart::Again;
use crate::stop::{Stop, go, wait_within};
use crate::tracee::go_on;
use crate::{InjectError, procfs, tracer};

/// How long one thread may take to stop. Threads that wait inside the kernel for a message to be read do not stop at all.
const STOP_MS_MAX: u64 = 5;

/// A process whose threads stand still until this is dropped.
struct Pause {
    pid: u32,
    stopped: Vec<Pid>,
    stop_pending: bool,
}

/// Runs `work` while every thread of process `pid` but `resident` stands still. Fails, with everything running as before,
/// if one of them cannot be stopped.
pub fn paused<T: Send>(pid: u32, resident: u32, work: impl FnOnce() -> T + Send) -> Result<T, InjectError> {
    let still = move || {
        let pause = Pause::begin(pid, resident)?;
        let result = work();
        drop(pause);
        Ok(result)
    };
    tracer::run(still)
}

impl Pause {
    /// Stops every thread of `pid` except `resident`. Fails, with everything running again, if one cannot be stopped.
    fn begin(pid: u32, resident: u32) -> Result<Self, InjectError> {
        let mut pause = Self { pid, stopped: Vec::new(), stop_pending: false };
        let mut seen = HashSet::from([resident]);
        loop {
            // Threads that were born meanwhile are found in the next round; a stopped program bears no more.
            let threads = procfs::threads(pid).map_err(|_| InjectError::Gone(pid))?;
            let fresh: Vec<u32> = threads.into_iter().filter(|&thread| seen.insert(thread)).collect();
            if fresh.is_empty() {
                return Ok(pause);
            }
            for thread in fresh {
                pause.stop(Pid::from_raw(thread as i32))?;
            }
        }
    }

    fn stop(&mut self, thread: Pid) -> Result<(), InjectError> {
        let busy = InjectError::Busy(self.pid, STOP_MS_MAX);
        match ptrace::seize(thread, Options::empty()) {
            Ok(()) => {}
            Err(nix::errno::Errno::ESRCH) => return Ok(()),
            // A zombie main thread, whose memory is gone, refuses too; it runs no more.
            Err(nix::errno::Errno::EPERM) if procfs::is_zombie(thread.as_raw() as u32) => return Ok(()),
            Err(errno) => return Err(InjectError::Refused { pid: self.pid, source: errno.into() }),
        }
        self.stopped.push(thread);
        if ptrace::interrupt(thread).is_err() {
            return Ok(());
        }
        loop {
            match wait_within(thread, Duration::from_millis(STOP_MS_MAX)) {
                Ok(Stop::Event(_)) => return Ok(()),
                Ok(Stop::Signal(libc::SIGSTOP)) => {
                    self.stop_pending = true;
                    let _ = go(thread, 0);
                }
                Ok(Stop::Signal(signal)) => {
                    let _ = go(thread, signal);
                }
                Ok(Stop::Ended) => {
                    self.stopped.pop();
                    return Ok(());
                }
                Ok(Stop::SystemCall) | Err(_) => return Err(busy),
            }
        }
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        for &thread in &self.stopped {
            go_on(thread, Again::Endless);
            // Fails for one that did not stop in time, which the end of this thread lets go.
            let _ = ptrace::detach(thread, None);
        }
        if self.stop_pending {
            let _ = nix::sys::signal::kill(Pid::from_raw(self.pid as i32), Signal::SIGSTOP);
        }
    }
}
