//! Where the built guest lies.

use std::env;
use std::path::{Path, PathBuf};

use crate::{PORT_NAME, ProbeError};

/// Names another directory in which the guest lies.
const VARIABLE: &str = "RACKMEM_GUEST";

/// The guest that `cargo xtask guest` built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestFiles {
    /// The kernel, for QEMU's `-kernel`.
    pub kernel: PathBuf,
    /// Its first root directory, for `-initrd`.
    pub initrd: PathBuf,
}

impl GuestFiles {
    /// A command line for the guest's kernel: console on the first serial port, quiet, and a panic ends the machine. A guest that may
    /// get memory above 4 GiB would set 64 MiB aside for devices that cannot reach it; virtio devices can.
    /// The clock is the processor's: Linux mistrusts a translated processor's and takes the HPET, which is read by a system call and
    /// under QEMU's great lock; a loop that looks at the clock at each page would measure little else.
    pub const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 swiotlb=noforce tsc=reliable";

    /// Finds the guest: in `$RACKMEM_GUEST`, else in `guest` of the cargo target directory in which the running program lies.
    pub fn find() -> Result<Self, ProbeError> {
        if let Some(directory) = env::var_os(VARIABLE) {
            return Self::in_directory(Path::new(&directory));
        }
        let own = env::current_exe().unwrap_or_default();
        own.ancestors()
            .skip(1)
            .find_map(|directory| Self::in_directory(&directory.join("guest")).ok())
            .ok_or_else(|| ProbeError::NoGuest(own.parent().unwrap_or(&own).to_owned()))
    }

    fn in_directory(directory: &Path) -> Result<Self, ProbeError> {
        let files = Self { kernel: directory.join("kernel"), initrd: directory.join("initrd") };
        if files.kernel.is_file() && files.initrd.is_file() {
            Ok(files)
        } else {
            Err(ProbeError::NoGuest(directory.to_owned()))
        }
    }

    /// QEMU's options that give the guest the probe's line, with QEMU listening on `socket`.
    pub fn probe_options(socket: &Path) -> [String; 6] {
        [
            "-chardev".to_owned(),
            format!("socket,id=probe,path={},server=on,wait=off", socket.display()),
            "-device".to_owned(),
            "virtio-serial-pci,id=probe-bus".to_owned(),
            "-device".to_owned(),
            format!("virtserialport,bus=probe-bus.0,chardev=probe,name={PORT_NAME}"),
        ]
    }
}
