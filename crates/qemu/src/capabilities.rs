//! What a QEMU offers, by its own word: it is started without a machine and asked. Versions are looked at only to refuse
//! those below the floor.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::broadcast;

use crate::qmp::Qmp;
use crate::{QemuError, Result, mortal};

/// The oldest QEMU that is used: Debian 12's.
const VERSION_MIN: [u64; 3] = [7, 2, 0];

/// What the rest of this crate cannot do without.
const NEEDED: [&str; 10] = [
    "query-status",
    "query-memory-devices",
    "query-memory-size-summary",
    "human-monitor-command",
    "qom-get",
    "qom-set",
    "qom-list",
    "object-add",
    "device_add",
    "device_del",
];

/// What a QEMU offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Its version.
    pub version: [u64; 3],
    /// Whose build it is.
    pub package: String,
    /// The machine type `q35`.
    pub q35: bool,
    /// Built with KVM; whether the host has it is another matter.
    pub kvm: bool,
    /// Built with translation.
    pub tcg: bool,
    /// The device `virtio-mem-pci`.
    pub virtio_mem: bool,
    /// The device `pc-dimm`.
    pub pc_dimm: bool,
    /// The device `virtio-balloon-pci`.
    pub balloon: bool,
    /// The balloon takes reports of free pages.
    pub free_page_reporting: bool,
    /// Memory can be had without being accounted for at once.
    pub unreserved_memory: bool,
    /// QEMU's own seccomp filter.
    pub sandbox: bool,
    /// Commands and events of its monitor.
    pub monitor: BTreeSet<String>,
}

impl Capabilities {
    /// Asks a QEMU program.
    pub async fn ask(program: &Path) -> Result<Self> {
        let mut qemu = mortal::command(program)
            .map_err(|reason| QemuError::program(program, reason))?
            // With the accelerator that there is: a QEMU that lacks the module for translation does not even start with it.
            .args(["-machine", "none,accel=kvm:tcg"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-S"])
            .args(["-qmp", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|reason| QemuError::program(program, reason))?;
        let (Some(input), Some(output), Some(mut errors)) =
            (qemu.stdin.take(), qemu.stdout.take(), qemu.stderr.take())
        else {
            return Err(QemuError::system("talk to QEMU")(std::io::ErrorKind::BrokenPipe.into()));
        };
        let (events, _) = broadcast::channel(1);
        let place = program.display().to_string();
        let asked = match Qmp::begin(tokio::io::join(output, input), &place, events).await {
            Ok(qmp) => ask(&qmp).await,
            Err(error) => Err(error),
        };
        // It may be asleep on its monitor, so it is killed; it has nothing to lose.
        let _ = qemu.kill().await;
        match asked {
            Ok(capabilities) => capabilities.check(program),
            Err(QemuError::Disconnected) => {
                let mut last_words = String::new();
                let _ = errors.read_to_string(&mut last_words).await;
                Err(QemuError::Start { last_words: last_words.trim().to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    /// `7.2.22 (Debian …)`.
    pub fn version_text(&self) -> String {
        let [major, minor, micro] = self.version;
        if self.package.is_empty() {
            format!("{major}.{minor}.{micro}")
        } else {
            format!("{major}.{minor}.{micro}, {}", self.package)
        }
    }

    fn check(self, program: &Path) -> Result<Self> {
        let unable = |what: String, remedy: &str| QemuError::Unable {
            program: program.to_owned(),
            version: self.version_text(),
            what,
            remedy: remedy.to_owned(),
        };
        if self.version < VERSION_MIN {
            return Err(unable("be used".to_owned(), "install QEMU 7.2 or later"));
        }
        if !self.q35 {
            return Err(unable("make a q35 machine".to_owned(), "use a qemu-system-x86_64 that has it"));
        }
        if let Some(missing) = NEEDED.into_iter().find(|name| !self.monitor.contains(*name)) {
            let what = format!("be driven: its monitor has no {missing}");
            return Err(unable(what, "use a QEMU of your distribution"));
        }
        Ok(self)
    }
}

async fn ask(qmp: &Qmp) -> Result<Capabilities> {
    let ask = async |command: &str, arguments: Value| qmp.execute(command, arguments).await;
    let devices = names(&ask("qom-list-types", json!({ "implements": "device" })).await?, "name");
    let accelerators = names(&ask("qom-list-types", json!({ "implements": "accel" })).await?, "name");
    let machines = ask("query-machines", json!({})).await?;
    let q35 = names(&machines, "alias").contains("q35") || names(&machines, "name").contains("q35");
    let backend = ask("qom-list-properties", json!({ "typename": "memory-backend-ram" })).await?;
    let options = names(&ask("query-command-line-options", json!({})).await?, "option");
    let balloon = devices.contains("virtio-balloon-pci");
    let free_page_reporting = balloon
        && names(&ask("device-list-properties", json!({ "typename": "virtio-balloon-pci" })).await?, "name")
            .contains("free-page-reporting");
    Ok(Capabilities {
        version: qmp.version(),
        package: qmp.package().to_owned(),
        q35,
        kvm: accelerators.contains("kvm-accel"),
        tcg: accelerators.contains("tcg-accel"),
        virtio_mem: devices.contains("virtio-mem-pci"),
        pc_dimm: devices.contains("pc-dimm"),
        balloon,
        free_page_reporting,
        unreserved_memory: names(&backend, "name").contains("reserve"),
        sandbox: options.contains("sandbox"),
        monitor: monitor_in(&ask("query-qmp-schema", json!({})).await?),
    })
}

/// One field of each object in a list.
fn names(list: &Value, field: &str) -> BTreeSet<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry[field].as_str())
        .map(str::to_owned)
        .collect()
}

/// Names of commands and events in a schema; types have numbers for names.
fn monitor_in(schema: &Value) -> BTreeSet<String> {
    let spoken = |entry: &&Value| matches!(entry["meta-type"].as_str(), Some("command" | "event"));
    let entries = schema.as_array().into_iter().flatten().filter(spoken);
    entries.filter_map(|entry| entry["name"].as_str()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_and_events_of_a_schema_are_kept() {
        let schema = json!([
            { "name": "query-status", "meta-type": "command" }, { "name": "STOP", "meta-type": "event", "x": 1 },
            { "name": "17", "meta-type": "object" }, 5, { "meta-type": "command" },
        ]);
        assert_eq!(monitor_in(&schema).into_iter().collect::<Vec<_>>(), ["STOP", "query-status"]);
        assert!(monitor_in(&Value::Null).is_empty());
    }

    #[tokio::test]
    async fn qemu_says_what_it_offers() {
        let offers = Capabilities::ask(Path::new(crate::PROGRAM)).await.unwrap();
        assert!(offers.version >= VERSION_MIN, "{offers:?}");
        assert!(offers.q35 && offers.tcg && offers.virtio_mem && offers.pc_dimm, "{offers:?}");
        assert!(offers.free_page_reporting && offers.unreserved_memory && offers.sandbox, "{offers:?}");
        assert!(offers.monitor.contains("MEMORY_DEVICE_SIZE_CHANGE"));
    }

    #[tokio::test]
    async fn a_program_that_is_absent_or_no_qemu_is_told() {
        let error = Capabilities::ask(Path::new("/nonexistent/qemu")).await.unwrap_err();
        assert!(error.to_string().contains("apt-get install qemu-system-x86"), "{error}");
        let error = Capabilities::ask(Path::new("/bin/ls")).await.unwrap_err();
        assert!(matches!(error, QemuError::Start { .. }), "{error}");
    }

    #[test]
    fn a_qemu_below_the_floor_is_refused() {
        let old = Capabilities {
            version: [6, 2, 0],
            package: String::new(),
            q35: true,
            kvm: true,
            tcg: true,
            virtio_mem: true,
            pc_dimm: true,
            balloon: true,
            free_page_reporting: true,
            unreserved_memory: true,
            sandbox: true,
            monitor: NEEDED.into_iter().map(str::to_owned).collect(),
        };
        let error = old.clone().check(Path::new("qemu")).unwrap_err().to_string();
        assert!(error.contains("6.2.0") && error.contains("7.2"), "{error}");
        let bare = Capabilities { version: [9, 0, 0], monitor: BTreeSet::new(), ..old };
        assert!(bare.check(Path::new("qemu")).unwrap_err().to_string().contains("query-status"));
    }
}
