//! The handle by which a signal handler's thread, or a test, ends a server.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Ends a server gently when triggered. Clones are the same handle.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<OwnedFd>);

impl Shutdown {
    /// A handle that is not triggered yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Ends the server that was given this handle; never blocks, and doing it twice does nothing more.
    pub fn trigger(&self) {
        // Only a counter that is full refuses, and then the handle is triggered already.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Whether it was triggered.
    pub fn is_triggered(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&*self.0, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Shutdown {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_trigger() {
        let shutdown = Shutdown::new().unwrap();
        let other = shutdown.clone();
        assert!(!other.is_triggered());
        shutdown.trigger();
        shutdown.trigger();
        assert!(other.is_triggered());
    }
}
