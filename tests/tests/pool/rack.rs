//! The small rack, standing, with what its bricks themselves tell.

use std::ops::Deref;
use std::time::Duration;

use rackmem_e2e::{Process, SMALL_RACK, StandingRack, c_program, rackmem};
use serde_json::Value;

/// A program with far memory in a brick.
const PROGRAM: Duration = Duration::from_secs(90);

pub(crate) struct Rack(StandingRack);

impl Deref for Rack {
    type Target = StandingRack;

    fn deref(&self) -> &StandingRack {
        &self.0
    }
}

impl Rack {
    pub(crate) fn up(name: &str) -> Self {
        Self(StandingRack::up(&format!("p{name}"), SMALL_RACK))
    }

    /// A program that fills some memory and looks whether it has what it wrote, with most of it on a server.
    pub(crate) fn fill_check(&self, brick: &str, server: &str, lost_after: u32, mib: u32) -> Process {
        let mut command = self.exec(brick, rackmem());
        command.args(["run", "--memory-server", server, "--local", "16MiB", "--lost-after"]);
        command.arg(lost_after.to_string()).arg("--").arg(c_program("fill_check")).arg(mib.to_string());
        Process::start(&mut command, PROGRAM)
    }

    /// Whether a program in a brick can use a memory server over the data net.
    #[track_caller]
    pub(crate) fn reaches(&self, brick: &str, server: &str) -> bool {
        let ended = self.fill_check(brick, server, 2, 48).finish();
        let passed = ended.status.success() && ended.stdout.contains("as written");
        assert!(passed || ended.stderr.contains(server), "neither reached nor said so: {ended:?}");
        passed
    }

    /// The memory brick of a reservation: its address on the data net.
    #[track_caller]
    pub(crate) fn server(&self, id: u64) -> &'static str {
        let view = self.json(&format!("reservation show {id}"));
        match view["mappings"][0]["segment"]["brick"].as_str() {
            Some("m1") => "10.77.0.3:7070",
            Some("m2") => "10.77.0.4:7070",
            other => panic!("no memory brick: {other:?} in {view}"),
        }
    }

    /// The entries of c1's table, by name, as its agent itself tells.
    #[track_caller]
    pub(crate) fn table(&self) -> Vec<String> {
        let entries = self.agent("c1", "10.78.0.1", "attachments");
        let name = |view: &Value| view["entry"]["id"].as_str().unwrap().to_owned();
        let mut names: Vec<_> = entries.as_array().unwrap().iter().map(name).collect();
        names.sort();
        names
    }

    /// The segments of both memory bricks by name, with their sizes, as the memory servers themselves tell.
    #[track_caller]
    pub(crate) fn segments(&self) -> Vec<(String, u64)> {
        let of = |(brick, address)| {
            let text = self.on_brick(brick, &format!("segment list --json --memory-server {address}:7070"));
            let listed: Vec<Value> = serde_json::from_str(&text).unwrap();
            let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
            listed.iter().map(|one| (name(one), one["size"].as_u64().unwrap())).collect::<Vec<_>>()
        };
        [("m1", "10.78.0.3"), ("m2", "10.78.0.4")].into_iter().flat_map(of).collect()
    }

    /// Nothing is connected, stored or in the table.
    #[track_caller]
    pub(crate) fn is_empty(&self, when: &str) {
        assert_eq!((self.circuits().as_str(), self.segments()), ("none", Vec::new()), "{when}");
        assert_eq!(self.table(), Vec::<String>::new(), "{when}");
    }
}
