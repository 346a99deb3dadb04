//! What a test says to the program inside a test guest, and what that answers: orders are lines of words, replies lines of
//! JSON (`docs/test-guests.md`). The program `guest-probe` of this crate serves them; [`ProbeClient`] speaks them from outside.
//!
//! This library never starts a virtual machine, and the program never changes the guest beyond memory of its own.

mod client;
mod content;
mod error;
mod files;
mod order;
mod reply;

pub use client::ProbeClient;
pub use content::{Content, Damage, Found, PAGE_WORDS, PageContent};
pub use error::ProbeError;
pub use files::GuestFiles;
pub use order::{Order, Pattern, Request, Side};
pub use reply::{
    Answer, Checked, Churned, Filled, Held, Info, Memory, MemoryBlocks, Node, OnePage, Outcome, Ran, Ready,
    Reply, Touched, VirtioDevice,
};

/// Name of the virtio-serial port on which the probe listens.
pub const PORT_NAME: &str = "rackmem.probe";

/// The serial port on which it listens where there is no such virtio port.
pub const SERIAL_PORT: &str = "/dev/ttyS1";

/// Longest line in either direction. A reply of a guest with the most NUMA nodes that Linux knows fits.
pub const LINE_BYTES_MAX: usize = 1 << 20;
