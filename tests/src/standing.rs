//! A rack in namespaces that stands for one test, and what its user says to it.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::machine::{self, has_ended};
use crate::{Client, Process, rackmem};

/// A request to an agent.
const REQUEST: Duration = Duration::from_secs(60);

/// A rack of this test's own. Taken down when this is dropped, unless that was done before.
pub struct StandingRack {
    client: Client,
    name: String,
}

impl Deref for StandingRack {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl StandingRack {
    /// Stands up the rack that the file `source` describes. `name` is short: network devices bear it.
    #[track_caller]
    pub fn up(name: &str, source: &str) -> Self {
        let rack = Self { client: Client::new(), name: format!("{name}-{}", std::process::id()) };
        rack.write("rack.toml", source);
        rack.start();
        rack
    }

    /// Starts what does not run of it; gives what is said.
    #[track_caller]
    pub fn start(&self) -> String {
        self.done(&format!("rack up rack.toml --name {}", self.name))
    }

    /// The rack's name, which is that of its controller's namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A file of the rack's.
    pub fn state(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path("racks").join(&self.name).join(name)
    }

    /// A program in a brick, to be given its arguments.
    pub fn exec(&self, brick: &str, program: impl AsRef<Path>) -> Command {
        let mut command = self.command(["rack", "exec", &self.name, brick, "--"]);
        command.arg(program.as_ref());
        command
    }

    /// `rackmem` in a brick, as somebody who may do everything there.
    #[track_caller]
    pub fn on_brick(&self, brick: &str, line: &str) -> String {
        let mut command = self.exec(brick, rackmem());
        command.args(line.split_whitespace()).arg("--token-file").arg(self.state("token"));
        Process::start(&mut command, REQUEST).finish().expect_success(line).stdout
    }

    /// The circuits of its switch `s1`, as `rack circuits` shows them.
    #[track_caller]
    pub fn circuits(&self) -> String {
        let text = self.done(&format!("rack circuits {} s1", self.name));
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
        let text = Process::start(&mut command, REQUEST).finish().expect_success(path).stdout;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error} in {text}"))
    }

    /// What runs in a brick.
    #[track_caller]
    pub fn pids(&self, brick: &str) -> Vec<u32> {
        pids(&format!("{}:{brick}", self.name))
    }

    /// Ends what runs in a brick, by force; returns when it is gone.
    #[track_caller]
    pub fn kill_brick(&self, brick: &str) {
        kill(&self.pids(brick));
    }

    /// Ends the rack's controller, by force; returns when it is gone.
    #[track_caller]
    pub fn kill_controller(&self) {
        kill(&pids(&self.name));
    }
}

impl Drop for StandingRack {
    fn drop(&mut self) {
        let mut down = self.command(["rack", "down", &self.name]);
        // It may not stand.
        let _ = down.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

#[track_caller]
fn pids(namespace: &str) -> Vec<u32> {
    let listed = Command::new("ip").args(["netns", "pids", namespace]).output();
    let text = listed.unwrap_or_else(|error| panic!("ip: {error}")).stdout;
    String::from_utf8_lossy(&text).split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn kill(pids: &[u32]) {
    for pid in pids {
        // What the program had started ends with it, and may be gone before its turn comes.
        machine::signal(*pid, Signal::KILL);
        while !has_ended(*pid) {
            thread::sleep(Duration::from_millis(2));
        }
    }
}
