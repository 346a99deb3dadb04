//! Dying on purpose, for tests: an agent that is told to ends itself by SIGKILL at the n-th moment at which a crash makes
//! a difference, which is before and after each record of a journal is written.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

/// How many moments are left; an agent that was not told lives on.
#[derive(Debug)]
pub(crate) struct Mortality {
    left: Option<AtomicU64>,
}

impl Mortality {
    /// Dies at this moment, counted from 1; never, if it is `None`.
    pub(crate) fn at(moment: Option<u64>) -> Self {
        Self { left: moment.map(AtomicU64::new) }
    }

    /// One moment passes.
    pub(crate) fn moment(&self) {
        if let Some(left) = &self.left
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            // It does not return.
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
}
