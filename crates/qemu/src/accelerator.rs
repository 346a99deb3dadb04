//! By what a guest's processors run: the host's own (KVM) or translation (TCG). That `/dev/kvm` is there and opens says
//! little, so a machine is started under it and has to run.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::{Capabilities, QemuError, Result, mortal, probe_rom};

/// The probe takes a fifth of a second where KVM works, four seconds where the host is itself translated.
const PROBE_TIMEOUT: Duration = Duration::from_secs(8);

const KVM_DEVICE: &str = "/dev/kvm";

/// Longer last words of QEMU are not for a sentence.
const REASON_BYTES_MAX: usize = 300;

/// What runs a guest's processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcceleratorKind {
    /// The host's processors.
    Kvm,
    /// Translation: works everywhere, slower by a factor of ten or more.
    Tcg,
}

/// What runs a guest's processors here, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accelerator {
    /// Which.
    pub kind: AcceleratorKind,
    /// A sentence for the user.
    pub reason: String,
}

impl Accelerator {
    /// KVM if a guest really runs under it, TCG otherwise.
    pub async fn choose(program: &Path, capabilities: &Capabilities) -> Result<Self> {
        match why_not_kvm(program, capabilities).await? {
            None => Ok(Self {
                kind: AcceleratorKind::Kvm,
                reason: "a probe guest runs under KVM at full speed".to_owned(),
            }),
            Some(reason) if capabilities.tcg => Ok(Self { kind: AcceleratorKind::Tcg, reason }),
            Some(reason) => Err(QemuError::Unable {
                program: program.to_owned(),
                version: capabilities.version_text(),
                what: format!("run a guest here: {reason}, and it is built without translation (TCG)"),
                remedy: "use a host with KVM, or a QEMU with TCG".to_owned(),
            }),
        }
    }
}

async fn why_not_kvm(program: &Path, capabilities: &Capabilities) -> Result<Option<String>> {
    if !capabilities.kvm {
        return Ok(Some("this QEMU is built without KVM".to_owned()));
    }
    if let Err(error) = OpenOptions::new().read(true).write(true).open(KVM_DEVICE) {
        return Ok(Some(format!("{KVM_DEVICE} cannot be opened ({error})")));
    }
    let rom = tempfile::NamedTempFile::new().map_err(QemuError::system("make a temporary file"))?;
    std::fs::write(rom.path(), probe_rom::rom()).map_err(QemuError::system("write a temporary file"))?;
    run_probe(program, "kvm", rom.path()).await
}

/// Runs the probe; why it did not succeed, if it did not.
async fn run_probe(program: &Path, accelerator: &str, rom: &Path) -> Result<Option<String>> {
    let probe = mortal::command(program)
        .map_err(|reason| QemuError::program(program, reason))?
        .args(["-accel", accelerator, "-machine", "q35", "-m", "16", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-no-reboot", "-bios"])
        .arg(rom)
        .args(["-device", &format!("isa-debug-exit,iobase={:#x},iosize=1", probe_rom::PORT)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|reason| QemuError::program(program, reason))?;
    let Ok(ended) = timeout(PROBE_TIMEOUT, probe.wait_with_output()).await else {
        return Ok(Some(format!(
            "{KVM_DEVICE} opens, but a probe guest of a few instructions did not end within {} s: this KVM only emulates a guest's kernel mode",
            PROBE_TIMEOUT.as_secs()
        )));
    };
    let ended = ended.map_err(QemuError::system("wait for the probe guest"))?;
    if ended.status.code() == Some(probe_rom::EXIT_CODE) {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let said: String = said.trim().chars().take(REASON_BYTES_MAX).collect();
    Ok(Some(format!(
        "{KVM_DEVICE} opens, but a probe guest does not run under it ({}: {said})",
        ended.status
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn qemu_runs_the_probe_by_translation() {
        let rom = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(rom.path(), probe_rom::rom()).unwrap();
        let program = Path::new(crate::PROGRAM);
        assert_eq!(run_probe(program, "tcg", rom.path()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn qemu_that_does_not_run_the_probe_is_told_with_its_words() {
        let rom = tempfile::NamedTempFile::new().unwrap();
        let reason = run_probe(Path::new(crate::PROGRAM), "none-such", rom.path()).await.unwrap().unwrap();
        assert!(reason.contains("none-such"), "{reason}");
    }
}
