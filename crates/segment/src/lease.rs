//! How long a segment lives: as long as a connection has it open, and its lease time longer.

use std::time::{Duration, Instant};

/// Who has a segment open, or until when it waits for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseState {
    /// So many connections have it open.
    Attached(u32),
    /// Nobody has it open; it is freed at this time.
    Waiting(Instant),
}

/// The lease of one segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    time: Duration,
    state: LeaseState,
}

impl Lease {
    /// The lease of a segment that its creator has open.
    pub(crate) fn attached(time: Duration) -> Self {
        Self { time, state: LeaseState::Attached(1) }
    }

    pub(crate) fn state(&self) -> LeaseState {
        self.state
    }

    /// One more connection has the segment open.
    pub(crate) fn open(&mut self) {
        self.state = match self.state {
            LeaseState::Attached(count) => LeaseState::Attached(count + 1),
            LeaseState::Waiting(_) => LeaseState::Attached(1),
        };
    }

    /// One of the connections that had it open is gone.
    pub(crate) fn leave(&mut self, now: Instant) {
        self.state = match self.state {
            LeaseState::Attached(count) if count > 1 => LeaseState::Attached(count - 1),
            LeaseState::Attached(_) => LeaseState::Waiting(now + self.time),
            waiting @ LeaseState::Waiting(_) => waiting,
        };
    }

    /// Whether the time is over.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        matches!(self.state, LeaseState::Waiting(until) if until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_runs_from_the_moment_the_last_connection_leaves() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lease = Lease::attached(Duration::from_secs(10));
        lease.open();
        lease.leave(at(1));
        assert!(!lease.is_over(at(1000)), "one connection still has it");
        lease.leave(at(2));
        assert!(!lease.is_over(at(11)));
        assert!(lease.is_over(at(12)));
        lease.open();
        assert!(!lease.is_over(at(1000)), "somebody came back in time");
    }
}
