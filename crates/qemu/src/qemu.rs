//! One QEMU program on this host: what it offers, by what it runs a guest, and machines started by it.

use std::path::{Path, PathBuf};

use crate::{
    Accelerator, Capabilities, DirectMachine, MachineConfig, MachineFiles, QemuError, Result, command_line,
    process,
};

/// The program, as distributions call it.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// A QEMU program and what is known of it.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// The program.
    pub program: PathBuf,
    /// What it offers.
    pub capabilities: Capabilities,
    /// By what its guests run on this host.
    pub accelerator: Accelerator,
}

impl Qemu {
    /// Looks at a program: half a second, but some seconds on a host whose KVM cannot really run a guest. Machines can be
    /// found again without it.
    pub async fn probe(program: &Path) -> Result<Self> {
        let capabilities = Capabilities::ask(program).await?;
        let accelerator = Accelerator::choose(program, &capabilities).await?;
        Ok(Self { program: program.to_owned(), capabilities, accelerator })
    }

    /// Starts a machine whose virtual CPUs stand until [`crate::Machine::resume`]. It outlives this process. The directory of
    /// `files` must exist.
    pub async fn start(&self, config: &MachineConfig, files: &MachineFiles) -> Result<DirectMachine> {
        let arguments = command_line::arguments(config, files, self.accelerator.kind, &self.capabilities)?;
        readable(config)?;
        if let Some(running) = process::find(files).await {
            return Err(QemuError::AlreadyRuns { name: config.name.clone(), pid: running.pid });
        }
        let started = process::start(&self.program, arguments, files).await?;
        DirectMachine::open(&config.name, &files.qmp(), started).await
    }
}

/// Says which file is missing; QEMU's own words would be about a device.
fn readable(config: &MachineConfig) -> Result<()> {
    let kernel = config.kernel.as_ref();
    let files = [
        ("the kernel", kernel.map(|kernel| &kernel.image)),
        ("the initrd", kernel.and_then(|kernel| kernel.initrd.as_ref())),
        ("the disk image", config.disk.as_ref().map(|disk| &disk.path)),
        ("the cloud-init seed", config.seed.as_ref()),
    ];
    for (what, path) in files {
        if let Some(path) = path {
            std::fs::File::open(path).map_err(|reason| QemuError::File {
                what,
                path: path.clone(),
                reason,
            })?;
        }
    }
    Ok(())
}
