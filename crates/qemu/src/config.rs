//! What a virtual machine should be: the choices of its owner, and the files it may use. Plain data, checked here
//! and turned into a command line in [`crate::command_line`]. Nothing here looks at the system.

use std::path::{Path, PathBuf};

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};

use crate::QemuError;

/// Growth of a guest's memory comes in steps of this size: it is virtio-mem's block under x86-64 with 2 MiB pages,
/// the smallest that does not split the guest's huge pages.
pub const MEMORY_BLOCK: Bytes = Bytes(2 << 20);

/// Linux adds memory by blocks of this size on x86-64 (`memory_block_size_bytes`), and of one that a virtio-mem device has only a
/// part of it uses nothing (`drivers/virtio/virtio_mem.c`).
const GUEST_BLOCK: Bytes = Bytes(128 << 20);

/// Less than this no kernel boots in.
pub const MEMORY_MIN: Bytes = Bytes(32 << 20);

/// As many virtual CPUs as a q35 machine has without an interrupt remapper.
pub const VCPUS_MAX: u32 = 255;

/// A name becomes a directory and a process title; 64 bytes leave room for both and for a Unix socket's path.
pub const NAME_BYTES_MAX: usize = 64;

/// The kernel's limit on a Unix socket's path, without the closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A virtual machine as it should be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What the guest boots with.
    pub memory: Bytes,
    /// What it can grow to while it runs.
    pub memory_max: Bytes,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// A kernel to boot directly. Without one the firmware boots the disk.
    pub kernel: Option<Kernel>,
    /// The disk.
    pub disk: Option<Disk>,
    /// A cloud-init seed, made by [`crate::seed`].
    pub seed: Option<PathBuf>,
    /// The means by which memory grows beyond `memory`.
    pub growth: Growth,
    /// Puts what grows into a NUMA node of its own, without CPUs, so that the guest's kernel knows it for far.
    pub far_node: Option<FarNode>,
    /// A balloon, by which the guest gives memory back and tells how it fares.
    pub balloon: Option<Balloon>,
    /// A virtio-serial port `rackmem.probe` with a Unix socket on our side.
    pub probe: bool,
    /// How the guest is reached over the network.
    pub network: Network,
    /// QEMU's own seccomp filter. A filtered process cannot be given far memory: the pager refuses to enter it.
    pub sandbox: bool,
}

/// A kernel that QEMU loads itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// The kernel's image.
    pub image: PathBuf,
    /// Its first file system.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub command_line: String,
}

/// A disk image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The file.
    pub path: PathBuf,
    /// What is in it. Never guessed at start: a guest that writes a qcow2 header onto its raw disk would else choose
    /// the host's files that it reads next time.
    pub format: DiskFormat,
}

/// Formats of disk images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// Sectors as they are.
    Raw,
    /// QEMU's format.
    Qcow2,
}

impl DiskFormat {
    /// The name of QEMU's driver.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// The means of growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// A virtio-mem device for `memory_max - memory`, of whole blocks of 128 MiB.
    pub virtio_mem: bool,
    /// Slots for DIMMs that are plugged while the guest runs; they have address space for `memory_max - memory` of
    /// their own, so that a guest without the virtio-mem driver can grow just as far.
    pub dimm_slots: u8,
}

/// The node of memory that is far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FarNode {
    /// Distance as ACPI counts it: 10 is local, 20 twice as far; 11 to 254.
    pub distance: u8,
}

/// The balloon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balloon {
    /// The guest reports pages it does not use, and they are given back at once.
    pub free_page_reporting: bool,
}

/// The guest's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// No network card.
    None,
    /// QEMU's own translation: the guest reaches out, nothing reaches it.
    User,
    /// A tap interface that exists already.
    Tap {
        /// The interface.
        interface: String,
        /// The card's address, `52:54:00:…`.
        mac: String,
    },
}

impl MachineConfig {
    /// What this machine can gain while it runs.
    pub const fn growable(&self) -> Bytes {
        Bytes(self.memory_max.0.saturating_sub(self.memory.0))
    }

    /// The size of its virtio-mem device. What goes beyond [`Self::growable`] is never asked of the guest.
    pub const fn virtio_mem_size(&self) -> Bytes {
        let size = if self.growth.virtio_mem { self.growable().0 } else { 0 };
        Bytes(size.next_multiple_of(GUEST_BLOCK.0))
    }

    /// Refuses what cannot be started, with a sentence. Files are looked at when the machine is started.
    pub fn check(&self) -> Result<(), QemuError> {
        name_check(&self.name)?;
        let refuse = |reason: String| Err(QemuError::Config { name: self.name.clone(), reason });
        if self.memory < MEMORY_MIN {
            return refuse(format!(
                "{} of memory is too little to boot: give at least {MEMORY_MIN}",
                self.memory
            ));
        }
        if self.memory_max < self.memory {
            return refuse(format!(
                "the maximum of memory ({}) is below what it starts with ({}): raise the one or lower the other",
                self.memory_max, self.memory
            ));
        }
        for (what, size) in [("memory", self.memory), ("the maximum of memory", self.memory_max)] {
            if size.0 % MEMORY_BLOCK.0 != 0 {
                return refuse(format!("{what} ({size}) must be a multiple of {MEMORY_BLOCK}"));
            }
        }
        if self.vcpus == 0 || self.vcpus > VCPUS_MAX {
            return refuse(format!("{} virtual CPUs are not possible: give 1 to {VCPUS_MAX}", self.vcpus));
        }
        if self.growable() > Bytes(0) && !self.growth.virtio_mem && self.growth.dimm_slots == 0 {
            return refuse(format!(
                "it should grow to {} but has neither virtio-mem nor DIMM slots: allow one of them, or let the maximum equal the memory",
                self.memory_max
            ));
        }
        if self.kernel.is_none() && self.disk.is_none() {
            return refuse("it has nothing to boot: give a kernel or a disk image".to_owned());
        }
        if let Some(FarNode { distance }) = self.far_node
            && !(11..=254).contains(&distance)
        {
            return refuse(format!(
                "a NUMA distance of {distance} is not possible: give 11 to 254 (10 is local)"
            ));
        }
        Ok(())
    }
}

/// Refuses names that could leave their directory or confuse a command line.
pub fn name_check(name: &str) -> Result<(), QemuError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let first = name.bytes().next();
    if first.is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(allowed)
    {
        Ok(())
    } else {
        Err(QemuError::Name(name.to_owned()))
    }
}

/// Where a machine's sockets and logs lie: all in one directory of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFiles {
    /// The directory.
    pub directory: PathBuf,
}

impl MachineFiles {
    /// In `directory`, which must be absolute: QEMU leaves the directory that it was started in.
    pub fn new(directory: impl Into<PathBuf>) -> Result<Self, QemuError> {
        let directory = directory.into();
        let files = Self { directory };
        if !files.directory.is_absolute() {
            return Err(QemuError::RelativeDirectory(files.directory));
        }
        let longest = files.console();
        if longest.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(QemuError::SocketPath { path: longest, bytes_max: SOCKET_PATH_BYTES_MAX });
        }
        Ok(files)
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::join(&self.directory, name)
    }

    /// The QMP socket.
    pub fn qmp(&self) -> PathBuf {
        self.file("qmp.sock")
    }

    /// The serial console's socket.
    pub fn console(&self) -> PathBuf {
        self.file("console.sock")
    }

    /// Everything the serial console ever said.
    pub fn console_log(&self) -> PathBuf {
        self.file("console.log")
    }

    /// The probe's socket.
    pub fn probe(&self) -> PathBuf {
        self.file("probe.sock")
    }

    /// QEMU's process id; QEMU holds a lock on it.
    pub fn pid(&self) -> PathBuf {
        self.file("qemu.pid")
    }

    /// What QEMU says on its standard error.
    pub fn log(&self) -> PathBuf {
        self.file("qemu.log")
    }

    /// A cloud-init seed for it.
    pub fn seed(&self) -> PathBuf {
        self.file("seed.img")
    }
}
