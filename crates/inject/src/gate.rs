//! The gate: how the pager keeps the resident thread from running certain calls for a moment, and calls off those that it
//! has not begun.
//!
//! Two words of the ring. `gate`: 0 open, 1 a gated call is running, 2 closed by the pager. `cancel`: not 0 while gated
//! calls are not to be run. The resident thread's side is the loop in `rackmem_uapi::resident`: it takes the gate from 0
//! to 1, looks at `cancel`, makes the call or does not, and puts the gate back to 0. One thread at a time closes.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

/// A word that two threads share.
pub(crate) trait Word {
    fn load(&self) -> u32;
    fn store(&self, value: u32);
    /// Puts `new` where `old` is; `false` if something else is there.
    fn replace(&self, old: u32, new: u32) -> bool;
}

impl Word for AtomicU32 {
    fn load(&self) -> u32 {
        self.load(SeqCst)
    }

    fn store(&self, value: u32) {
        self.store(value, SeqCst);
    }

    fn replace(&self, old: u32, new: u32) -> bool {
        self.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }
}

const OPEN: u32 = 0;
const RUNNING: u32 = 1;
const CLOSED: u32 = 2;

/// The pager's side of a gate.
pub(crate) struct Gate<'a, W> {
    pub(crate) gate: &'a W,
    pub(crate) cancel: &'a W,
}

impl<W: Word> Gate<'_, W> {
    /// Gated calls that are submitted from now on run again.
    pub(crate) fn arm(&self) {
        self.cancel.store(0);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.load() != 0
    }

    /// On return no gated call is running and none will start before the gate is opened; unless `give_up`, which is asked
    /// while a call is running, says that its thread is gone.
    pub(crate) fn close(&self, mut give_up: impl FnMut() -> bool) {
        while !self.gate.replace(OPEN, CLOSED) {
            if give_up() {
                return;
            }
        }
    }

    /// Takes over a gate whose pager is gone, and may have closed it: calls everything off, and opens it. On return no gated
    /// call is running.
    pub(crate) fn inherit(&self, mut give_up: impl FnMut() -> bool) {
        self.cancel.store(1);
        self.gate.replace(CLOSED, OPEN);
        while self.gate.load() == RUNNING && !give_up() {}
    }

    /// Opens the gate; with `cancel`, no gated call runs before [`Gate::arm`].
    pub(crate) fn open(&self, cancel: bool) {
        if cancel {
            self.cancel.store(1);
        }
        self.gate.store(OPEN);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
    use shuttle::thread;

    use super::{Gate, Word};

    impl Word for AtomicU32 {
        fn load(&self) -> u32 {
            self.load(SeqCst)
        }

        fn store(&self, value: u32) {
            self.store(value, SeqCst);
        }

        fn replace(&self, old: u32, new: u32) -> bool {
            self.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
        }
    }

    /// The ring as both sides see it, and what the calls would act upon.
    struct Ring {
        gate: AtomicU32,
        cancel: AtomicU32,
        running: AtomicBool,
        /// The message about a changed mapping has been read: from here on the kernel would let old moves take place.
        read: AtomicBool,
    }

    impl Ring {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                gate: AtomicU32::new(0),
                cancel: AtomicU32::new(0),
                running: AtomicBool::new(false),
                read: AtomicBool::new(false),
            })
        }

        fn gate(&self) -> Gate<'_, AtomicU32> {
            Gate { gate: &self.gate, cancel: &self.cancel }
        }

        /// The resident thread's loop over the gated calls of one batch, instruction by instruction as in
        /// `rackmem_uapi::resident`. Gives how many ran.
        fn run_batch(&self, calls: u32) -> u32 {
            let mut ran = 0;
            for _ in 0..calls {
                while self.gate.compare_exchange(0, 1, SeqCst, SeqCst).is_err() {
                    thread::yield_now();
                }
                if self.cancel.load(SeqCst) == 0 {
                    self.running.store(true, SeqCst);
                    assert!(!self.read.load(SeqCst), "a call of an old batch ran after the message was read");
                    ran += 1;
                    self.running.store(false, SeqCst);
                }
                self.gate.store(0, SeqCst);
            }
            ran
        }
    }

    fn give_up() -> bool {
        thread::yield_now();
        false
    }

    #[test]
    fn nothing_runs_behind_a_closed_gate_nor_after_a_cancel() {
        let scenario = || {
            let ring = Ring::new();
            ring.gate().arm();
            let resident = Arc::clone(&ring);
            let batch = thread::spawn(move || resident.run_batch(3));
            // Nothing was there to read: the batch goes on.
            ring.gate().close(give_up);
            assert!(!ring.running.load(SeqCst), "a call is running behind the gate");
            ring.gate().open(false);
            // A message was there.
            ring.gate().close(give_up);
            ring.read.store(true, SeqCst);
            assert!(!ring.running.load(SeqCst), "a call is running behind the gate");
            ring.gate().open(true);
            batch.join().unwrap();
            assert!(ring.gate().is_cancelled());
            // The next batch is planned after the message was acted upon.
            ring.read.store(false, SeqCst);
            ring.gate().arm();
            assert_eq!(ring.run_batch(2), 2, "a batch that nobody cancelled runs to its end");
        };
        shuttle::check_random(scenario, 3000);
        shuttle::check_pct(scenario, 1000, 3);
    }
}
