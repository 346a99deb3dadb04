//! What a virtual machine reports of its own accord, in the words of this crate. Events are hints: one may be missed (a
//! driver says so), so whoever waits for a state also asks for it now and then.

use rackmem_types::Bytes;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Something happened to a machine.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It ended or is about to. `by_guest`: the guest switched itself off.
    Shutdown {
        /// Whether the guest did it.
        by_guest: bool,
        /// QEMU's word for it: `guest-shutdown`, `host-signal`, …
        reason: String,
    },
    /// It was reset.
    Reset {
        /// Whether the guest did it.
        by_guest: bool,
    },
    /// Its virtual CPUs stand still.
    Paused,
    /// Its virtual CPUs run.
    Resumed,
    /// The guest was asked to switch itself off.
    PowerDown,
    /// The balloon leaves the guest this much of its boot memory and DIMMs.
    BalloonChanged {
        /// What the guest has.
        actual: Bytes,
    },
    /// A virtio-mem device has another size.
    MemorySizeChanged {
        /// The device; its id, or its path if it has none.
        device: String,
        /// What is plugged now.
        size: Bytes,
    },
    /// A device was unplugged.
    DeviceDeleted {
        /// The device; its id, or its path if it has none.
        device: String,
    },
    /// The guest would not let go of a device.
    UnplugRefused {
        /// The device; its id, or its path if it has none.
        device: String,
        /// Why, if it said.
        reason: String,
    },
    /// The guest's kernel panicked.
    GuestPanicked,
    /// Its process is gone.
    Ended,
    /// Events were lost; look at the machine itself.
    Missed,
    /// Any other.
    Other {
        /// QEMU's name of it.
        name: String,
        /// What it says.
        data: Value,
    },
}

/// The events of one machine from now on.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    pub(crate) fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self(receiver)
    }

    /// The next event; nothing once the driver is gone. Can be dropped while it waits.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(_)) => Some(Event::Missed),
            Err(RecvError::Closed) => None,
        }
    }
}
