//! QEMU as it is driven from outside: what a machine should be ([`MachineConfig`]), how it is started and found again, the
//! QMP conversation, the mechanics of changing its memory, and libvirt domains. An agent sees all of them as [`Machine`].
//!
//! This crate decides nothing: how large a guest should be, where its memory lies and what happens when are others' affairs.
//! It holds no state that must survive; a machine is found again by its process and its sockets.

mod config;
mod error;
mod event;
mod machine;
pub mod memory;
mod procfs;

pub use config::{
    Balloon, Disk, DiskFormat, FarNode, Growth, Kernel, MEMORY_BLOCK, MEMORY_MIN, MachineConfig,
    MachineFiles, NAME_BYTES_MAX, Network, VCPUS_MAX, name_check,
};
pub use error::QemuError;
pub use event::{Event, Events};
pub use machine::{Driver, Ended, Machine, RunState};
pub use procfs::ProcessIdentity;

/// What comes of an operation on a machine.
pub type Result<T, E = QemuError> = std::result::Result<T, E>;
