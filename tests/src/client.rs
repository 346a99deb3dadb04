//! `rackmem` as its user types it, in a directory of a test's own.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Ended, Process, free_address, rackmem};

/// One command, a resize of a busy guest in translation included.
const COMMAND: Duration = Duration::from_secs(180);

/// An event comes within this time, or never.
const EVENT: Duration = Duration::from_secs(20);

/// Knows of the racks in its directory, or of one controller, and of nothing else. Lines are cut at their spaces.
#[derive(Debug)]
pub struct Client {
    directory: TempDir,
    controller: Option<String>,
}

impl Client {
    /// In an empty directory.
    #[track_caller]
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory can be made"), controller: None }
    }

    /// A file of the test's own. Commands run beside it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes such a file.
    #[track_caller]
    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Starts a controller on the loopback device, whose state is in `state`. It is the one that is asked from now on.
    #[track_caller]
    pub fn start_controller(&mut self, options: &str) -> Process {
        let address = free_address();
        let mut process = self.begin(&format!("controller --listen {address} --state state {options}"));
        process.expect_line(&format!("controller: on {address}"));
        self.knows(&address);
        process
    }

    /// Asks the controller at `address` from now on.
    pub fn knows(&mut self, address: &str) {
        self.controller = Some(address.to_owned());
    }

    /// Where the controller listens that is asked.
    pub fn controller(&self) -> &str {
        self.controller.as_deref().unwrap_or_default()
    }

    /// `rackmem` with these arguments.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(rackmem());
        command.args(arguments).current_dir(self.directory.path()).stdin(Stdio::null());
        command.env("RACKMEM_RACKS", self.path("racks")).env_remove("RACKMEM_AGENT");
        match &self.controller {
            Some(address) => command.env("RACKMEM_CONTROLLER", address),
            None => command.env_remove("RACKMEM_CONTROLLER"),
        };
        command
    }

    /// A command, running.
    #[track_caller]
    pub fn begin(&self, line: &str) -> Process {
        Process::start(&mut self.command(line.split_whitespace()), COMMAND)
    }

    /// A command, and how it ended.
    #[track_caller]
    pub fn ask(&self, line: &str) -> Ended {
        self.begin(line).finish()
    }

    /// What a command says that has to succeed.
    #[track_caller]
    pub fn done(&self, line: &str) -> String {
        self.ask(line).expect_success(line).stdout
    }

    /// The same, as JSON.
    #[track_caller]
    pub fn json(&self, line: &str) -> Value {
        let text = self.done(&format!("{line} --json"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error} in {text}"))
    }

    /// It is refused in words that say `why`.
    #[track_caller]
    pub fn refused(&self, line: &str, why: &str) -> Ended {
        let ended = self.ask(line);
        let told = ended.stderr.contains(why) && !ended.stderr.contains("panicked");
        assert!(!ended.status.success() && told, "{line}: {ended:?}");
        ended
    }

    /// What is explained brick by brick to whoever does as the refused command advised.
    #[track_caller]
    pub fn why(&self, refused: &Ended) -> String {
        let advice = refused.stderr.split("rackmem why ").nth(1).and_then(|rest| rest.split('\'').next());
        let operation = advice.unwrap_or_else(|| panic!("nothing is advised: {refused:?}"));
        self.done(&format!("why {operation}"))
    }

    /// Waits until nothing that was accepted is under way. Some of it may end undone.
    #[track_caller]
    pub fn settled(&self) {
        let running = || self.json("operation list --state running");
        for operation in running().as_array().into_iter().flatten() {
            self.ask(&format!("operation wait {}", operation["id"].as_str().unwrap_or_default()));
        }
        assert_eq!(running(), Value::Array(Vec::new()));
    }

    /// Waits until an event of that kind tells something.
    #[track_caller]
    pub fn told(&self, kind: &str) {
        let begun = Instant::now();
        while !self.done("events").contains(kind) {
            assert!(begun.elapsed() < EVENT, "no {kind}: {}", self.done("events"));
            thread::sleep(Duration::from_millis(100));
        }
        println!("{kind} after {:?}", begun.elapsed());
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}
