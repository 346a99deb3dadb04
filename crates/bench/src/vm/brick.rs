//! A compute brick as its user meets it: an agent, and `rackmem vm` to ask it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guest_probe::{GuestFiles, ProbeClient};
use rackmem_types::Bytes;
use serde::Deserialize;

use super::lab::Lab;
use crate::process::{Daemon, call};
use crate::product::MemoryServer;
use crate::undo::{self, Undo};

/// How long a guest may take to boot: seconds if the processor runs it, far more if it is translated on a busy machine.
const BOOT_TIME_MAX: Duration = Duration::from_secs(120);

/// How often is looked whether something has happened: well below the times that are measured.
const POLL: Duration = Duration::from_millis(5);

/// What the probe says on the console as soon as it can be asked.
const READY: &str = "guest-probe: ready";

/// An agent of this machine, ended with its machines when this is dropped.
pub(crate) struct Brick<'a> {
    lab: &'a Lab,
    // Dropped in this order.
    agent: Option<Daemon>,
    _machines: Undo,
    state: PathBuf,
    qemu: Option<PathBuf>,
    server: Option<String>,
    _directory: Undo,
}

/// What `rackmem vm list --json` says of a machine, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Vm {
    pub(crate) state: String,
    pub(crate) pid: Option<u32>,
}

impl<'a> Brick<'a> {
    /// A new agent without machines. `qemu` stands for the QEMU program, `server` lends far memory.
    pub(crate) fn start(lab: &'a Lab, qemu: Option<PathBuf>, server: Option<&MemoryServer>) -> Result<Self> {
        let (state, directory) = undo::temporary_directory()?;
        let place = state.clone();
        let machines = undo::later("turn the machines off", move || turn_off_all(&place));
        let server = server.map(|server| server.address().to_owned());
        let mut brick =
            Self { lab, agent: None, _machines: machines, state, qemu, server, _directory: directory };
        brick.agent_start()?;
        brick.wait_until("the agent's answer", |brick| brick.list().is_ok())?;
        Ok(brick)
    }

    /// Waits until the agent has found out what runs guests here. At its first start that keeps a processor busy for seconds.
    pub(crate) fn wait_settled(&self) -> Result<()> {
        self.wait_until("what runs guests", |brick| {
            brick.lab.accelerator.is_some() || brick.state.join("accelerator.json").exists()
        })
    }

    fn agent_start(&mut self) -> Result<()> {
        let mut command = self.lab.product.command(None);
        command.arg("agent").arg("--listen").arg(socket(&self.state)).arg("--state").arg(&self.state);
        command.args(self.lab.accelerator.iter().flat_map(|kind| ["--accelerator", kind]));
        command.args(self.server.iter().flat_map(|server| ["--memory-server", server]));
        if let Some(qemu) = &self.qemu {
            command.arg("--qemu").arg(qemu);
        }
        command.env("RUST_LOG", "warn").stdout(Stdio::null());
        self.agent = Some(Daemon::spawn(&mut command)?);
        Ok(())
    }

    /// Kills the agent and starts it again: how long it takes until `found` says of its machines that all are there.
    pub(crate) fn agent_restart(&mut self, found: impl Fn(&[Vm]) -> bool) -> Result<Duration> {
        let pid = self.agent.as_ref().context("no agent")?.pid();
        call(Command::new("kill").args(["-KILL", &pid.to_string()]))?;
        self.agent = None;
        let start = Instant::now();
        self.agent_start()?;
        self.wait_until("all machines", |brick| brick.list().is_ok_and(|vms| found(&vms)))?;
        Ok(start.elapsed())
    }

    /// `rackmem vm`, to be given its arguments.
    pub(crate) fn vm(&self) -> Command {
        let mut command = self.lab.product.command(None);
        command.arg("vm").env("RACKMEM_AGENT", socket(&self.state));
        command
    }

    pub(crate) fn list(&self) -> Result<Vec<Vm>> {
        let text = call(self.vm().args(["list", "--json"]))?;
        serde_json::from_str(&text).with_context(|| format!("rackmem vm list --json said '{text}'"))
    }

    /// `rackmem vm create` with the test guest, to be given further options.
    pub(crate) fn create(&self, name: &str, memory: Bytes) -> Command {
        let mut command = self.vm();
        command
            .args(["create", name, "--memory", &memory.0.to_string(), "--vcpus", "2"])
            .arg("--kernel")
            .arg(&self.lab.guest.kernel)
            .arg("--initrd")
            .arg(&self.lab.guest.initrd)
            .args(["--append", GuestFiles::KERNEL_ARGUMENTS]);
        command
    }

    /// Runs `create` and waits for the guest: how long that takes.
    pub(crate) fn boot(&self, name: &str, create: &mut Command) -> Result<Duration> {
        let start = Instant::now();
        call(create)?;
        wait_ready(&self.directory(name).join("console.log"))?;
        Ok(start.elapsed())
    }

    pub(crate) fn probe(&self, name: &str) -> Result<ProbeClient> {
        Ok(ProbeClient::connect(&self.directory(name).join("probe.sock"), BOOT_TIME_MAX)?)
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.state.join("vms").join(name)
    }

    fn wait_until(&self, what: &str, mut ready: impl FnMut(&Self) -> bool) -> Result<()> {
        let start = Instant::now();
        while !ready(self) {
            let agent = self.agent.as_ref().context("no agent")?;
            ensure!(agent.ended()?.is_none(), "the agent ended before {what}");
            ensure!(start.elapsed() < BOOT_TIME_MAX, "no sign of {what}");
            thread::sleep(POLL);
        }
        Ok(())
    }
}

/// Starts a command whose end is waited for later.
pub(crate) fn begin(command: &mut Command) -> Result<Child> {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    quiet.spawn().with_context(|| format!("could not start {command:?}"))
}

/// Waits until the guest's probe has said on the console that it is there.
pub(crate) fn wait_ready(console: &Path) -> Result<()> {
    let start = Instant::now();
    loop {
        // The console says what it likes, not only UTF-8.
        let said = fs::read(console).unwrap_or_default();
        if String::from_utf8_lossy(&said).contains(READY) {
            return Ok(());
        }
        ensure!(start.elapsed() < BOOT_TIME_MAX, "the guest did not boot; it said: {}", end_of(&said));
        thread::sleep(POLL);
    }
}

fn end_of(said: &[u8]) -> String {
    String::from_utf8_lossy(&said[said.len().saturating_sub(500)..]).into_owned()
}

fn socket(state: &Path) -> String {
    format!("unix:{}", state.join("agent.sock").display())
}

/// Turns every machine below `state` off, with or without an agent. Their pagers end with them.
fn turn_off_all(state: &Path) -> Result<()> {
    let Ok(machines) = fs::read_dir(state.join("vms")) else { return Ok(()) };
    for machine in machines {
        let directory = machine?.path();
        let pid = fs::read_to_string(directory.join("qemu.pid")).unwrap_or_default().trim().to_owned();
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // Process ids are used again: only what was started for this directory is ended.
        if String::from_utf8_lossy(&command_line).contains(&*directory.to_string_lossy()) {
            call(Command::new("kill").args(["-KILL", &pid]))?;
            wait_gone(&pid)?;
        }
    }
    Ok(())
}

fn wait_gone(pid: &str) -> Result<()> {
    let start = Instant::now();
    while Path::new("/proc").join(pid).exists() {
        ensure!(start.elapsed() < BOOT_TIME_MAX, "process {pid} does not end");
        thread::sleep(POLL);
    }
    Ok(())
}
