//! What an agent can do with a virtual machine, whoever started it: one trait, with a driver that speaks QMP to the QEMU
//! process ([`crate::DirectMachine`]) and one that goes through libvirt ([`crate::libvirt::LibvirtMachine`]). Each operation is small and
//! can be repeated; what should be done when is for others to decide.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::Events;
use crate::memory::{self, GuestMemory, MemoryState, Unplug};
use crate::procfs::ProcessIdentity;
use crate::{QemuError, Result};

/// By which way a machine is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// QMP, spoken to QEMU itself.
    Qemu,
    /// A libvirt domain.
    Libvirt,
}

impl Driver {
    /// What a device of a machine that was made here is called by QEMU. libvirt leaves to its users only names that begin
    /// with `ua-`.
    pub fn device_id(self, id: &str) -> String {
        match self {
            Self::Qemu => id.to_owned(),
            Self::Libvirt => format!("ua-{id}"),
        }
    }
}

/// What a machine is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Started, and no virtual CPU has run yet.
    Prepared,
    /// Its virtual CPUs run.
    Running,
    /// Its virtual CPUs stand still.
    Paused,
    /// The guest has switched itself off; QEMU is still there or just ending.
    ShutDown,
    /// It cannot go on; QEMU's word for it (`io-error`, `internal-error`, `guest-panicked`, …).
    Failed(String),
    /// There is no process.
    Off,
}

/// How a machine came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// It was not running.
    WasOff,
    /// The guest switched itself off.
    ByGuest,
    /// QEMU was told to end and did.
    Quit,
    /// It had to be killed.
    Killed,
}

/// A virtual machine that has been started, or a libvirt domain, which may also be off.
#[async_trait]
pub trait Machine: fmt::Debug + Send + Sync {
    /// Its name.
    fn name(&self) -> &str;

    /// The way by which it is driven.
    fn driver(&self) -> Driver;

    /// Its QEMU process. [`QemuError::NotRunning`] if there is none.
    async fn process(&self) -> Result<ProcessIdentity>;

    /// What it is doing. [`RunState::Off`] is an answer, not an error.
    async fn state(&self) -> Result<RunState>;

    /// Lets the virtual CPUs run. Nothing happens if they do.
    async fn resume(&self) -> Result<()>;

    /// Stops the virtual CPUs. Nothing happens if they stand.
    async fn pause(&self) -> Result<()>;

    /// Asks the guest to switch itself off, as by its power button. It may take its time or not listen.
    async fn power_down(&self) -> Result<()>;

    /// Ends QEMU: asks the guest and waits for `patience` (not at all if zero), then tells QEMU, then kills it.
    async fn stop(&self, patience: Duration) -> Result<Ended>;

    /// Runs a QMP command and returns what it returns.
    async fn execute(&self, command: &str, arguments: Value) -> Result<Value>;

    /// Its events from now on.
    fn events(&self) -> Events;

    /// Asks the balloon to leave the guest `size` of its boot memory and DIMMs. What virtio-mem plugged does not count.
    /// The guest follows at its own pace, and possibly not all the way: see [`memory::observe`].
    async fn balloon_to(&self, size: Bytes) -> Result<()>;

    /// Asks a virtio-mem device (by the id in [`MemoryState`]) to plug or unplug until it holds `size`, a multiple of its
    /// block. The guest follows at its own pace, and possibly not all the way: see [`memory::observe`].
    async fn virtio_mem_request(&self, device: &str, size: Bytes) -> Result<()>;

    /// How its memory stands, and how far what was asked for has been done.
    async fn memory(&self) -> Result<MemoryState> {
        memory::state(self).await
    }

    /// What the guest says of its memory; nothing if it has no balloon, or has not said anything yet.
    async fn guest_memory(&self) -> Result<Option<GuestMemory>> {
        memory::guest(self).await
    }

    /// Has the guest asked for its numbers every `seconds`; zero for never.
    async fn guest_memory_every(&self, seconds: u32) -> Result<()> {
        memory::guest_every(self, seconds).await
    }

    /// Plugs a DIMM under `id`; nothing happens if one of this id and size is there. In NUMA node `node` if given.
    async fn dimm_plug(&self, id: &str, size: Bytes, node: Option<u32>) -> Result<()> {
        memory::dimm_plug(self, id, size, node).await
    }

    /// Asks the guest to let the DIMM `id` go. [`memory::observe`] tells when it has or will not; ask again then.
    async fn dimm_unplug(&self, id: &str) -> Result<Unplug> {
        memory::dimm_unplug(self, id).await
    }

    /// Where in the QEMU process a guest-physical address lies.
    async fn host_address(&self, guest_physical: u64) -> Result<u64> {
        memory::host_address(self, guest_physical).await
    }
}

impl RunState {
    /// From QEMU's word in `query-status`.
    pub(crate) fn from_qemu(word: &str) -> Self {
        match word {
            "running" => Self::Running,
            "prelaunch" | "preconfig" | "inmigrate" => Self::Prepared,
            "shutdown" => Self::ShutDown,
            "paused" | "debug" | "suspended" | "save-vm" | "restore-vm" | "finish-migrate"
            | "postmigrate" | "colo" => Self::Paused,
            failed => Self::Failed(failed.to_owned()),
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepared => f.pad("prepared"),
            Self::Running => f.pad("running"),
            Self::Paused => f.pad("paused"),
            Self::ShutDown => f.pad("shut down"),
            Self::Failed(word) => f.pad(&format!("failed ({word})")),
            Self::Off => f.pad("off"),
        }
    }
}

/// Says that something is absent that the QMP answer must have.
pub(crate) fn answer(command: &str, reason: impl Into<String>) -> QemuError {
    QemuError::Answer { command: command.to_owned(), reason: reason.into() }
}
