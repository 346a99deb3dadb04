//! libvirt's own client program, run once per call or left running to hear events.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::{QemuError, Result, mortal};

const PROGRAM: &str = "virsh";

/// The longest that a call may take: a domain's start and end take libvirt some seconds.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How to call it.
#[derive(Clone, Debug)]
pub(crate) struct Virsh {
    uri: String,
}

impl Virsh {
    pub(crate) fn new(uri: &str) -> Self {
        Self { uri: uri.to_owned() }
    }

    /// Runs a command and returns what it says; its words if it fails.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<String> {
        let what = arguments.first().copied().unwrap_or_default();
        let ended = timeout(TIMEOUT, self.command(arguments).output())
            .await
            .map_err(|_| QemuError::Timeout { command: format!("virsh {what}"), waited: TIMEOUT })?
            .map_err(not_there)?;
        if ended.status.success() {
            return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        // Its first line repeats the command, the others say why.
        let reasons: Vec<_> = said
            .lines()
            .map(|line| line.trim_start_matches("error: ").trim())
            .filter(|line| !line.is_empty())
            .collect();
        Err(QemuError::Libvirt { what: what.to_owned(), reason: reasons.join("; ") })
    }

    /// Starts a command that goes on and whose words are read as they come. It ends when it is dropped.
    pub(crate) fn follow(&self, arguments: &[&str]) -> Result<Child> {
        // It waits for events and would not notice that its reader was killed.
        self.complete(mortal::command(Path::new(PROGRAM)).map_err(not_there)?, arguments)
            .stderr(Stdio::null())
            .spawn()
            .map_err(not_there)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.complete(Command::new(PROGRAM), arguments)
    }

    fn complete(&self, mut command: Command, arguments: &[&str]) -> Command {
        command
            .args(["--quiet", "--connect", &self.uri])
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

fn not_there(reason: std::io::Error) -> QemuError {
    QemuError::Program { program: PROGRAM.into(), package: "libvirt-clients", reason }
}
