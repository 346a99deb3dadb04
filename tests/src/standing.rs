//! A rack in namespaces that stands for one test, and what its user says to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::{Ended, Process, rackmem};

/// One command, a resize of a busy guest in translation included.
const COMMAND: Duration = Duration::from_secs(180);

/// A rack of this test's own. Taken down when this is dropped, unless that was done before.
pub struct StandingRack {
    directory: TempDir,
    name: String,
}

impl StandingRack {
    /// Stands up the rack that the file `source` describes. `name` is short: network devices bear it.
    #[track_caller]
    pub fn up(name: &str, source: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        fs::write(directory.path().join("rack.toml"), source).expect("it can be written to");
        let rack = Self { directory, name: format!("{name}-{}", std::process::id()) };
        rack.start();
        rack
    }

    /// Starts what does not run of it; gives what is said.
    #[track_caller]
    pub fn start(&self) -> String {
        let file = self.path("rack.toml");
        self.done(&["rack", "up", &file.to_string_lossy(), "--name", &self.name])
    }

    /// The rack's name, which is that of its controller's namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A file of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file of the rack's.
    pub fn state(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path("racks").join(&self.name).join(name)
    }

    /// `rackmem` with these arguments, for this rack.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(rackmem());
        command.args(arguments).env("RACKMEM_RACKS", self.path("racks")).stdin(Stdio::null());
        for variable in ["RACKMEM_CONTROLLER", "RACKMEM_AGENT"] {
            command.env_remove(variable);
        }
        command
    }

    /// A program in a brick, to be given its arguments.
    pub fn exec(&self, brick: &str, program: impl AsRef<Path>) -> Command {
        let mut command = self.command(&["rack", "exec", &self.name, brick, "--"]);
        command.arg(program.as_ref());
        command
    }

    /// A command, running.
    pub fn begin(&self, arguments: &[&str]) -> Process {
        Process::start(&mut self.command(arguments), COMMAND)
    }

    /// What a command says that has to succeed.
    #[track_caller]
    pub fn done(&self, arguments: &[&str]) -> String {
        self.begin(arguments).finish().expect_success(&arguments.join(" ")).stdout
    }

    /// The same, as JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.done(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error} in {text}"))
    }

    /// It is refused in words that say `why`.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str], why: &str) -> Ended {
        let ended = self.begin(arguments).finish();
        let told = ended.stderr.contains(why) && !ended.stderr.contains("panicked");
        assert!(!ended.status.success() && told, "{arguments:?}: {ended:?}");
        ended
    }

    /// The circuits of its switch `s1`, as `rack circuits` shows them.
    #[track_caller]
    pub fn circuits(&self) -> String {
        let text = self.done(&["rack", "circuits", &self.name, "s1"]);
        text.split(" (").next().unwrap_or_default().trim_start_matches("circuits: ").to_owned()
    }

    /// What the agent of a brick answers to a request that nobody stands in between of; `address` is its own on the management
    /// net.
    #[track_caller]
    pub fn agent(&self, brick: &str, address: &str, path: &str) -> Value {
        const ASK: &str = "import sys, urllib.request as r; token = open(sys.argv[2]).read().strip(); \
            print(r.urlopen(r.Request(sys.argv[1], headers={'Authorization': 'Bearer ' + token})).read().decode())";
        let mut command = self.exec(brick, "python3");
        command.args(["-c", ASK, &format!("http://{address}:7080/v1/{path}")]).arg(self.state("token"));
        let text = Process::start(&mut command, COMMAND).finish().expect_success(path).stdout;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error} in {text}"))
    }
}

impl Drop for StandingRack {
    fn drop(&mut self) {
        let mut down = self.command(&["rack", "down", &self.name]);
        // It may not stand.
        let _ = down.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
