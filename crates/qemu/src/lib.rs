//! QEMU as it is driven from outside: what a machine should be ([`MachineConfig`]), how it is started and found again, the
//! QMP conversation, the mechanics of changing its memory, and libvirt domains (feature `libvirt`). An agent sees all of them as [`Machine`].
//!
//! This crate decides nothing: how large a guest should be, where its memory lies and what happens when are others' affairs.
//! It holds no state that must survive; a machine is found again by its process and its sockets.

mod accelerator;
mod capabilities;
pub mod command_line;
mod config;
mod direct;
mod error;
mod event;
pub mod image;
#[cfg(feature = "libvirt")]
pub mod libvirt;
mod machine;
pub mod memory;
mod mortal;
mod option;
mod probe_rom;
pub mod process;
mod procfs;
mod qemu;
mod qmp;
pub mod seed;

pub use accelerator::{Accelerator, AcceleratorKind};
pub use capabilities::Capabilities;
pub use config::{
    Balloon, Disk, DiskFormat, FarNode, Growth, Kernel, MEMORY_BLOCK, MEMORY_MIN, MachineConfig,
    MachineFiles, NAME_BYTES_MAX, Network, VCPUS_MAX, name_check,
};
pub use direct::DirectMachine;
pub use error::QemuError;
pub use event::{Event, Events};
pub use machine::{Driver, Ended, Machine, RunState};
pub use procfs::ProcessIdentity;
pub use qemu::{PROGRAM, Qemu};

/// What comes of an operation on a machine.
pub type Result<T, E = QemuError> = std::result::Result<T, E>;
