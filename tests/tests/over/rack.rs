//! A rack in namespaces for one test, with what is asked of its controller, and of its agents behind the controller's back.

use std::fs;
use std::io::{Read, Write};
use std::ops::Deref;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use guest_probe::{GuestFiles, ProbeClient};
use rackmem_e2e::{Process, StandingRack};
use serde_json::Value;

/// A machine is made within this time.
const CREATE: Duration = Duration::from_secs(180);

/// A guest boots in three seconds where it has a processor for itself.
const BOOT: Duration = Duration::from_secs(90);

/// Two compute and two memory bricks at one switch.
const RACK: &str = r#"
rack = [{ name = "r1" }]
tray = [{ name = "t1", rack = "r1" }]
compute = [
    { name = "c1", tray = "t1", cores = 1, local = "512MiB", ports = 2 },
    { name = "c2", tray = "t1", cores = 4, local = "512MiB", ports = 2 },
]
memory = [
    { name = "m1", tray = "t1", size = "640MiB", ports = 1 },
    { name = "m2", tray = "t1", size = "640MiB", ports = 1 },
]
switch = [{ name = "s1", tray = "t1", kind = "circuit", ports = 8 }]
cable = [
    { ends = ["c1:0", "s1:0"] },
    { ends = ["c1:1", "s1:1"] },
    { ends = ["c2:0", "s1:2"] },
    { ends = ["c2:1", "s1:3"] },
    { ends = ["m1:0", "s1:4"] },
    { ends = ["m2:0", "s1:5"] },
]
"#;

/// That rack, standing, and the guest that its machines run.
pub(crate) struct Rack {
    standing: StandingRack,
    guest: GuestFiles,
}

impl Deref for Rack {
    type Target = StandingRack;

    fn deref(&self) -> &StandingRack {
        &self.standing
    }
}

impl Rack {
    pub(crate) fn up(name: &str) -> Self {
        let guest = GuestFiles::find().unwrap_or_else(|error| panic!("{error}"));
        Self { standing: StandingRack::up(&format!("o{name}"), RACK), guest }
    }

    /// The making of a machine from the test guest, under way.
    #[track_caller]
    pub(crate) fn creating(&self, name: &str, options: &str) -> Process {
        let mut command = self.command(["vm", "create", name, "--append", GuestFiles::KERNEL_ARGUMENTS]);
        command.arg("--kernel").arg(&self.guest.kernel).arg("--initrd").arg(&self.guest.initrd);
        Process::start(command.args(options.split_whitespace()), CREATE)
    }

    #[track_caller]
    pub(crate) fn create(&self, name: &str, options: &str) -> String {
        self.creating(name, options).finish().expect_success("vm create").stdout
    }

    /// A machine whose guest has nothing to boot from: it stands still in its kernel, and does not hear its power button.
    #[track_caller]
    pub(crate) fn create_deaf(&self, name: &str, options: &str) {
        let mut command = self.command(["vm", "create", name, "--append", "console=ttyS0"]);
        command.arg("--kernel").arg(&self.guest.kernel).args(options.split_whitespace());
        Process::start(&mut command, CREATE).finish().expect_success("vm create");
    }

    /// A machine, as the controller shows it.
    #[track_caller]
    pub(crate) fn machine(&self, name: &str) -> Value {
        self.json(&format!("vm show {name}"))
    }

    /// The program in a guest; waits until the guest has booted.
    #[track_caller]
    pub(crate) fn probe(&self, brick: &str, vm: &str) -> ProbeClient {
        let socket = self.state("bricks").join(brick).join("agent/vms").join(vm).join("probe.sock");
        ProbeClient::connect(&socket, BOOT).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Types a line into a machine's console until that shows `answer`.
    #[track_caller]
    pub(crate) fn typed(&self, vm: &str, line: &str, answer: &str) {
        let mut command = self.command(["vm", "console", vm]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let shown = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&shown);
        let reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                seen.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        wait_until("the guest answers on its console", || {
            keys.write_all(format!("\n{line}\n").as_bytes()).unwrap();
            thread::sleep(Duration::from_millis(300));
            String::from_utf8_lossy(&shown.lock().unwrap()).contains(answer)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap();
    }

    /// What an agent itself answers: 0 is that of c1, 1 that of c2.
    #[track_caller]
    pub(crate) fn asked(&self, number: usize, path: &str) -> Value {
        self.agent(["c1", "c2"][number], &format!("10.78.0.{}", number + 1), path)
    }

    /// `rackmem vm` in a brick, asking its agent: 0 is that of c1, 1 that of c2.
    #[track_caller]
    pub(crate) fn on_agent(&self, number: usize, line: &str) -> String {
        self.on_brick(["c1", "c2"][number], &format!("vm {line} --agent 10.78.0.{}:7080", number + 1))
    }

    /// Command lines of what runs in a brick.
    pub(crate) fn programs(&self, brick: &str) -> Vec<String> {
        let line = |pid| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let pids = self.pids(brick).into_iter();
        pids.map(|pid| String::from_utf8_lossy(&line(pid)).replace('\0', " ")).collect()
    }

    /// The processes of the one pager in a brick: itself and its trustee.
    #[track_caller]
    pub(crate) fn pager(&self, brick: &str) -> Vec<u32> {
        let is_pager = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1) == Some(b"pager")
        };
        let pager: Vec<_> = self.pids(brick).into_iter().filter(is_pager).collect();
        assert_eq!(pager.len(), 2, "{:?}", self.programs(brick));
        pager
    }

    /// Nothing is reserved, connected, attached or running.
    #[track_caller]
    pub(crate) fn is_empty(&self) {
        let nothing = Value::Array(Vec::new());
        assert_eq!(self.json("vm list"), nothing);
        assert_eq!(self.json("reservation list"), nothing);
        assert_eq!(self.circuits(), "none");
        for (number, brick) in ["c1", "c2"].into_iter().enumerate() {
            assert_eq!(self.asked(number, "vms"), nothing);
            assert_eq!(self.asked(number, "attachments"), nothing);
            // Beside the agent, the guest of a few instructions by which it finds out whether KVM works.
            let is_left = |line: &String| !line.contains(" agent ") && !line.contains("isa-debug-exit");
            // A pager ends by itself when its machine is gone.
            wait_until("nothing runs any more", || !self.programs(brick).iter().any(is_left));
        }
        for brick in self.json("brick list").as_array().unwrap() {
            assert_eq!(brick["used"], 0, "{brick}");
        }
    }
}

/// Waits for something that comes within half a minute, or never.
#[track_caller]
pub(crate) fn wait_until(what: &str, is_so: impl FnMut() -> bool) {
    wait_for(what, Duration::from_secs(30), is_so);
}

/// Waits for something that takes its time.
#[track_caller]
pub(crate) fn wait_for(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < patience, "not within {patience:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
