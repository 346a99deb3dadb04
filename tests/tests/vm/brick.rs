//! A compute brick for one test: a memory server, an agent, and what is asked of it through the command line.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guest_probe::{GuestFiles, ProbeClient};
use rackmem_e2e::{Ended, Process, Rack};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A whole test, the growth of a guest ten times included.
const TEST: Duration = Duration::from_secs(900);

/// One command, a resize of a busy guest in translation included.
const COMMAND: Duration = Duration::from_secs(180);

/// A guest boots in three seconds where it has a processor for itself.
const BOOT: Duration = Duration::from_secs(90);

pub(crate) struct Brick {
    pub(crate) rack: Rack,
    agent: Option<Process>,
    /// What the last agent said that was killed.
    pub(crate) said: String,
    guest: GuestFiles,
    /// Options that every agent of this brick gets.
    options: Vec<String>,
}

impl Brick {
    /// A memory server and an agent.
    pub(crate) fn start() -> Self {
        let mut brick = Self::without_agent();
        brick.start_agent(&[]);
        brick
    }

    /// The same, with agents whose libvirt is at `uri`.
    pub(crate) fn of_libvirt(mut self, uri: &str) -> Self {
        self.options = vec!["--libvirt".to_owned(), uri.to_owned()];
        self.start_agent(&[]);
        self
    }

    pub(crate) fn without_agent() -> Self {
        let guest = GuestFiles::find().unwrap_or_else(|error| panic!("{error}"));
        Self { rack: Rack::start(), agent: None, said: String::new(), guest, options: Vec::new() }
    }

    /// Starts the agent and waits until it answers.
    pub(crate) fn start_agent(&mut self, options: &[&str]) {
        let state = self.state().display().to_string();
        let socket = self.socket();
        let server = self.rack.address().to_owned();
        let mut command = self.rack.command(["agent", "--listen", &socket, "--state", &state]);
        command.args(["--memory-server", &server, "--accelerator", "tcg"]).args(&self.options).args(options);
        let mut agent = Process::start(&mut command, TEST);
        agent.expect_line(&format!("agent: on {socket}"));
        self.agent = Some(agent);
    }

    /// Kills the agent alone, as a crash does.
    pub(crate) fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.signal(Signal::KILL);
            wait_until("the agent ends", || !agent.is_running());
            self.said = agent.finish().stderr;
        }
    }

    /// Whether the agent has ended by itself.
    pub(crate) fn agent_died(&mut self) -> bool {
        self.agent.as_mut().is_none_or(|agent| !agent.is_running())
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.rack.directory().join("state")
    }

    pub(crate) fn socket(&self) -> String {
        format!("unix:{}", self.rack.directory().join("agent.sock").display())
    }

    /// `rackmem vm …`, however it ends.
    pub(crate) fn vm(&self, arguments: &[&str]) -> Ended {
        self.vm_process(arguments).finish()
    }

    /// `rackmem vm …`, running.
    pub(crate) fn vm_process(&self, arguments: &[&str]) -> Process {
        let mut command = self.rack.command(["vm"]);
        command.args(arguments).env("RACKMEM_AGENT", self.socket());
        Process::start(&mut command, COMMAND)
    }

    /// `rackmem vm …`, which has to succeed: what it printed.
    #[track_caller]
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        self.vm(arguments).expect_success(&format!("vm {}", arguments.join(" "))).stdout
    }

    /// `rackmem vm …`, which has to be refused: what it said.
    #[track_caller]
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let ended = self.vm(arguments);
        assert!(
            ended.status.code() == Some(1),
            "vm {arguments:?} was not refused: {} {}",
            ended.status,
            ended.stdout
        );
        assert_eq!(ended.status.signal(), None);
        ended.stderr
    }

    /// Makes a machine from the test guest.
    #[track_caller]
    pub(crate) fn create(&self, name: &str, options: &[&str]) {
        let line = self.create_line(name, options);
        self.done(&line.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// The command line that makes a machine from the test guest.
    pub(crate) fn create_line(&self, name: &str, options: &[&str]) -> Vec<String> {
        let (kernel, initrd) =
            (self.guest.kernel.display().to_string(), self.guest.initrd.display().to_string());
        let words = GuestFiles::KERNEL_ARGUMENTS;
        let fixed = ["create", name, "--kernel", &kernel, "--initrd", &initrd, "--append", words];
        fixed.iter().chain(options).map(|word| (*word).to_owned()).collect()
    }

    #[track_caller]
    pub(crate) fn show(&self, name: &str) -> Value {
        serde_json::from_str(&self.done(&["show", name, "--json"])).expect("show --json prints JSON")
    }

    /// A size in `vm show`, in MiB.
    #[track_caller]
    pub(crate) fn mib(&self, name: &str, field: &str) -> u64 {
        self.show(name)["memory"][field].as_u64().unwrap_or_else(|| panic!("no {field}")) >> 20
    }

    /// The program in the guest; waits until the guest has booted.
    #[track_caller]
    pub(crate) fn probe(&self, name: &str) -> ProbeClient {
        let socket = self.state().join("vms").join(name).join("probe.sock");
        ProbeClient::connect(&socket, BOOT)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.done(&["log", name])))
    }

    /// Kills the pager of a machine; returns when another one serves it, with the number of the dead one.
    pub(crate) fn kill_pager(&self, name: &str) -> u64 {
        let pager = || self.show(name)["pager"]["pid"].as_u64();
        let dead = pager().unwrap_or_else(|| panic!("{name} has no pager"));
        let pid = Pid::from_raw(i32::try_from(dead).unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        wait_until("a successor serves it", || pager().is_some_and(|pid| pid != dead));
        dead
    }

    /// QEMU processes of this brick.
    pub(crate) fn qemus(&self) -> Vec<u32> {
        processes_with(&self.state())
    }

    pub(crate) fn guest(&self) -> &GuestFiles {
        &self.guest
    }
}

impl Drop for Brick {
    fn drop(&mut self) {
        self.agent = None;
        // Machines live on without their agent, which is the point, but not beyond the test.
        for pid in self.qemus() {
            let _ = Pid::from_raw(pid.cast_signed()).map(|pid| kill_process(pid, Signal::KILL));
        }
        let begin = Instant::now();
        while !self.qemus().is_empty() && begin.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Processes other than agents that have a path below `directory` on their command line.
fn processes_with(directory: &Path) -> Vec<u32> {
    let text = directory.join("vms").display().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&text)
    })
    .collect()
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, Duration::from_secs(60), &mut is_so);
}

#[track_caller]
pub(crate) fn wait_for(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < patience, "waited {patience:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
