//! Command scripts over simulated agents, and what comes of them, reviewed as behaviour: the real command line asks the real
//! controller. Each `scripts/*.txt` is a script; its output is the snapshot beside it (`cargo insta review`).
//!
//! What differs from run to run is given a name: operations are OPERATION-1, OPERATION-2 and so on in the order in which they are told of,
//! and can be written like that in a script. Times are T.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rackmem_agent_sim::{Latencies, SimConfig, SimFleet};
use rackmem_e2e::{Client, Process};
use rackmem_types::Bytes;

/// Characters of an operation's identity.
const ID_LENGTH: usize = 36;

/// Two trays; c1 has few cores, c3 is alone with little memory near it. AGENTS is where the agents are.
const RACK: &str = r#"
rack = [{ name = "r1" }]
tray = [{ name = "t1", rack = "r1" }, { name = "t2", rack = "r1" }]
compute = [
    { name = "c1", tray = "t1", cores = 2, local = "8GiB", ports = 2, address = "http://AGENTS/agents/c1" },
    { name = "c2", tray = "t1", cores = 8, local = "16GiB", ports = 2, address = "http://AGENTS/agents/c2" },
    { name = "c3", tray = "t2", cores = 8, local = "16GiB", ports = 2, address = "http://AGENTS/agents/c3" },
]
memory = [
    { name = "m1", tray = "t1", size = "16GiB", ports = 2, address = "sim:10.0.0.1:7070" },
    { name = "m2", tray = "t2", size = "4GiB", ports = 2, address = "sim:10.0.0.2:7070" },
]
switch = [
    { name = "s1", tray = "t1", kind = "circuit", ports = 8, address = "sim:8" },
    { name = "s2", tray = "t2", kind = "circuit", ports = 8, address = "sim:8" },
    { name = "s0", rack = "r1", kind = "circuit", ports = 4, address = "sim:4" },
]
cable = [
    { ends = ["c1:0", "s1:0"] }, { ends = ["c1:1", "s1:1"] },
    { ends = ["c2:0", "s1:2"] }, { ends = ["c2:1", "s1:3"] },
    { ends = ["m1:0", "s1:4"] }, { ends = ["m1:1", "s1:5"] },
    { ends = ["c3:0", "s2:0"] }, { ends = ["c3:1", "s2:1"] },
    { ends = ["m2:0", "s2:2"] }, { ends = ["m2:1", "s2:3"] },
    { ends = ["s1:6", "s0:0"] }, { ends = ["s1:7", "s0:1"] },
    { ends = ["s2:6", "s0:2"] }, { ends = ["s2:7", "s0:3"] },
]
"#;

/// A controller over simulated agents.
struct World {
    client: Client,
    agents: String,
    /// Identities of operations, in the order in which they were told of.
    operations: Vec<String>,
    _process: Process,
}

impl World {
    fn start() -> Self {
        let mut client = Client::new();
        let agents = agents();
        client.write("rack.toml", &RACK.replace("AGENTS", &agents));
        let process = client.start_controller("--rack rack.toml");
        Self { client, agents, operations: Vec::new(), _process: process }
    }

    /// What a line of a script prints, and how it ends if not well.
    fn run(&mut self, line: &str) -> String {
        let mut line = line.to_owned();
        for (at, id) in self.operations.iter().enumerate().rev() {
            line = line.replace(&format!("OPERATION-{}", at + 1), id);
        }
        let ended = self.client.ask(&line);
        let mut out = self.named(&ended.stdout) + &self.named(&ended.stderr);
        if let Some(code) = ended.status.code().filter(|code| *code != 0) {
            writeln!(out, "[{code}]").unwrap();
        }
        out
    }

    /// The text without what differs from run to run.
    fn named(&mut self, text: &str) -> String {
        let text = text.replace(&self.agents, "AGENTS");
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(next) = rest.chars().next() {
            let word = rest.get(..ID_LENGTH).filter(|word| is_id(word));
            match word {
                Some(id) => {
                    let known = self.operations.iter().position(|known| known == id);
                    let at = known.unwrap_or_else(|| {
                        self.operations.push(id.to_owned());
                        self.operations.len() - 1
                    });
                    write!(out, "OPERATION-{}", at + 1).unwrap();
                    rest = &rest[ID_LENGTH..];
                }
                None => {
                    out.push(next);
                    rest = &rest[next.len_utf8()..];
                }
            }
        }
        out.lines().map(|line| without_times(line) + "\n").collect()
    }
}

fn is_id(word: &str) -> bool {
    let dashes = [8, 13, 18, 23];
    word.bytes().enumerate().all(
        |(at, byte)| {
            if dashes.contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() }
        },
    )
}

/// `3 s` becomes `T`; what stands in columns loses its width with it.
fn without_times(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let mut out: Vec<&str> = Vec::new();
    for word in words {
        let before = out.last().copied().unwrap_or_default();
        if word == "s" && !before.is_empty() && before.bytes().all(|byte| byte.is_ascii_digit()) {
            out.pop();
            out.push("T");
        } else {
            out.push(word);
        }
    }
    out.join(" ")
}

/// Serves the agents until the test ends; where they are.
fn agents() -> String {
    let (told, address) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let brick = |name: &str| SimConfig {
                name: name.to_owned(),
                memory: Bytes(64 << 30),
                memory_servers: Vec::new(),
                latencies: Latencies::none(),
                ..SimConfig::default()
            };
            let fleet = SimFleet::new(["c1", "c2", "c3"].map(brick));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap().to_string()).unwrap();
            axum::serve(listener, fleet.router()).await.unwrap();
        });
    });
    address.recv_timeout(Duration::from_secs(10)).unwrap()
}

#[track_caller]
fn check(script: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/over/scripts");
    let source = fs::read_to_string(directory.join(script).with_extension("txt")).unwrap();
    let mut world = World::start();
    let mut out = String::new();
    for line in source.lines().filter(|line| !line.is_empty()) {
        writeln!(out, "{}{line}", if line.starts_with('#') { "" } else { "$ rackmem " }).unwrap();
        if !line.starts_with('#') {
            out += &world.run(line);
        }
    }
    insta::with_settings!({ snapshot_path => directory, prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(script, out);
    });
}

#[test]
fn a_reservation_from_preview_to_release() {
    check("reservation");
}

#[test]
fn a_machine_from_its_making_to_its_end() {
    check("machine");
}

#[test]
fn a_guest_is_paused_and_followed() {
    check("guest");
}

#[test]
fn what_is_refused_says_why_and_changes_nothing() {
    check("refusals");
}
