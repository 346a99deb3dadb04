//! What the pager's threads ask of far memory: a [`Port`], as far as page states depend on it.

use std::time::{Duration, Instant};

use rackmem_far::{Event, Port, ReadRequest, WriteRequest};
use rackmem_types::{PageVersion, Slot};

/// Moves pages between this machine and memory servers, for one thread. Each method promises what [`Port`]'s does.
pub(crate) trait Transfer {
    /// Asks for pages.
    fn read(&mut self, requests: &[ReadRequest]);
    /// Stores pages.
    fn write(&mut self, pages: &[WriteRequest<'_>]);
    /// Forgets pages whose version is at most `up_to`.
    fn discard(&mut self, slots: &[Slot], up_to: PageVersion);
    /// Pages that are asked for or on their way, and not answered.
    fn in_flight(&self) -> usize;
    /// When `advance` must be called even if no descriptor is ready.
    fn deadline(&self) -> Option<Instant>;
    /// Receives what is there; never blocks.
    fn advance(&mut self, now: Instant, sink: &mut dyn FnMut(Event<'_>));
    /// Blocks until something is there or `timeout` is over, then advances.
    fn wait(&mut self, timeout: Option<Duration>, sink: &mut dyn FnMut(Event<'_>));
}

impl Transfer for Port {
    fn read(&mut self, requests: &[ReadRequest]) {
        self.read(requests);
    }

    fn write(&mut self, pages: &[WriteRequest<'_>]) {
        self.write(pages);
    }

    fn discard(&mut self, slots: &[Slot], up_to: PageVersion) {
        self.discard(slots, up_to);
    }

    fn in_flight(&self) -> usize {
        self.in_flight()
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline()
    }

    fn advance(&mut self, now: Instant, sink: &mut dyn FnMut(Event<'_>)) {
        self.advance(now, sink);
    }

    fn wait(&mut self, timeout: Option<Duration>, sink: &mut dyn FnMut(Event<'_>)) {
        self.wait(timeout, sink);
    }
}
