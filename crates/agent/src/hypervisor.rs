//! The QEMU of this brick: what it offers and by what it runs guests, found out once and in the background.
//!
//! Whether KVM really runs a guest takes seconds to find out where it does not, and cannot change before the next boot, so
//! the outcome is kept in a file. Machines that run already are found without any of this.

use std::fs;
use std::path::{Path, PathBuf};

use rackmem_qemu::{Accelerator, AcceleratorKind, Capabilities, Qemu, QemuError};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

/// The QEMU of this brick.
#[derive(Debug)]
pub(crate) struct Hypervisor {
    program: PathBuf,
    wanted: Option<AcceleratorKind>,
    kept: PathBuf,
    found: OnceCell<Qemu>,
}

/// What was found out, for which boot and program.
#[derive(Serialize, Deserialize)]
struct Kept {
    boot: String,
    program: PathBuf,
    version: [u64; 3],
    accelerator: Accelerator,
}

impl Hypervisor {
    /// The QEMU `program`, whose guests run as is `wanted`, or as is best. What is found out is kept in `state`.
    pub(crate) fn new(program: PathBuf, wanted: Option<AcceleratorKind>, state: &Path) -> Self {
        Self { program, wanted, kept: state.join("accelerator.json"), found: OnceCell::new() }
    }

    /// What was found out so far.
    pub(crate) fn known(&self) -> Option<&Qemu> {
        self.found.get()
    }

    /// All that can be known; waits until it is found out.
    pub(crate) async fn qemu(&self) -> Result<&Qemu, QemuError> {
        self.found.get_or_try_init(|| self.find_out()).await
    }

    async fn find_out(&self) -> Result<Qemu, QemuError> {
        let capabilities = Capabilities::ask(&self.program).await?;
        let accelerator = match self.wanted {
            Some(kind) => {
                Accelerator { kind, reason: "the agent was told to use it (--accelerator)".to_owned() }
            }
            None => self.choose(&capabilities).await?,
        };
        let version = capabilities.version_text();
        tracing::info!(version, accelerator = ?accelerator.kind, reason = accelerator.reason, "QEMU is ready");
        Ok(Qemu { program: self.program.clone(), capabilities, accelerator })
    }

    async fn choose(&self, capabilities: &Capabilities) -> Result<Accelerator, QemuError> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        if let Some(kept) = self.read()
            && kept.boot == boot
            && kept.program == self.program
            && kept.version == capabilities.version
        {
            return Ok(kept.accelerator);
        }
        let accelerator = Accelerator::choose(&self.program, capabilities).await?;
        let kept = Kept {
            boot,
            program: self.program.clone(),
            version: capabilities.version,
            accelerator: accelerator.clone(),
        };
        // Kept or not, it is right; next time it only takes longer.
        let _ = serde_json::to_vec(&kept).map(|json| fs::write(&self.kept, json));
        Ok(accelerator)
    }

    fn read(&self) -> Option<Kept> {
        serde_json::from_slice(&fs::read(&self.kept).ok()?).ok()
    }
}
