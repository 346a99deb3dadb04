//! Starting, leading and looking at other programs. Every child is ended with this program, however that ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use serde::de::DeserializeOwned;

use crate::undo::{self, Undo};

/// How long a server may take until it listens.
const START_TIME_MAX: Duration = Duration::from_secs(20);

/// How long a child may take to end after SIGTERM before it is killed.
const END_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a workload may run. The longest takes half a minute; one that takes this long is stuck.
const WORKLOAD_TIME_MAX: Duration = Duration::from_secs(120);

const POLL: Duration = Duration::from_millis(10);

/// A child process that is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Arc<Mutex<Child>>,
    pid: u32,
    name: String,
    _undo: Undo,
}

impl Daemon {
    /// Starts `command`.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        // A group of its own: Ctrl-C reaches this program alone, which then ends the others in the right order.
        let child = command.process_group(0).spawn().with_context(|| format!("could not start {name}"))?;
        let pid = child.id();
        let child = Arc::new(Mutex::new(child));
        let same = Arc::clone(&child);
        let undo = undo::later(format!("end {name}"), move || {
            end(&mut same.lock().unwrap_or_else(PoisonError::into_inner))
        });
        Ok(Self { child, pid, name, _undo: undo })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has ended, and how.
    pub(crate) fn ended(&self) -> Result<Option<ExitStatus>> {
        Ok(self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait()?)
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            ensure!(start.elapsed() < limit, "{} did not end within {} s", self.name, limit.as_secs());
            thread::sleep(POLL);
        }
    }

    /// Waits until `ready`, which is asked over and over, answers yes. An early end of the child is an error.
    pub(crate) fn wait_until(&self, what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
        let start = Instant::now();
        while !ready() {
            if let Some(status) = self.ended()? {
                bail!("{} ended ({status}) before {what}", self.name);
            }
            ensure!(start.elapsed() < START_TIME_MAX, "{}: no sign of {what}", self.name);
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until it accepts connections on a port of this machine.
    pub(crate) fn wait_for_port(&self, port: u16) -> Result<()> {
        self.wait_until("a listening port", || TcpStream::connect(loopback(port)).is_ok())
    }
}

fn end(child: &mut Child) -> Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    let pid =
        i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a child without a process id")?;
    rustix::process::kill_process(pid, Signal::TERM)?;
    let start = Instant::now();
    while start.elapsed() < END_TIME_MAX {
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        thread::sleep(POLL);
    }
    // The whole group: what the child started must not outlive it.
    rustix::process::kill_process_group(pid, Signal::KILL)?;
    child.wait()?;
    Ok(())
}

/// A workload: a child that says `ready`, is led by lines, and reports JSON on its last line. One that is stuck is ended,
/// which its reader meets as the end of its output.
#[derive(Debug)]
pub(crate) struct Workload {
    daemon: Daemon,
    /// Dropped with the workload, which ends the watch over it.
    _watched: Sender<()>,
    input: std::process::ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Workload {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let daemon = Daemon::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let (input, output) = {
            let mut child = daemon.child.lock().unwrap_or_else(PoisonError::into_inner);
            (child.stdin.take().context("no pipe")?, child.stdout.take().context("no pipe")?)
        };
        let (watched, ended) = mpsc::channel();
        let (child, name) = (Arc::clone(&daemon.child), daemon.name.clone());
        thread::spawn(move || {
            if ended.recv_timeout(WORKLOAD_TIME_MAX) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{name} is stuck and is ended");
                let _ = end(&mut child.lock().unwrap_or_else(PoisonError::into_inner));
            }
        });
        Ok(Self { daemon, _watched: watched, input, output: BufReader::new(output) })
    }

    /// Waits for `ready`.
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line.trim() == "ready", "{} said '{}' instead of 'ready'", self.daemon.name, line.trim());
        Ok(())
    }

    /// Sends a line.
    pub(crate) fn lead(&mut self, line: &str) -> Result<()> {
        // In one go: who reads its first part may have ended before the next.
        Ok(self.input.write_all(format!("{line}\n").as_bytes())?)
    }

    /// Waits for its end and reads its report.
    pub(crate) fn report<T: DeserializeOwned>(mut self) -> Result<T> {
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        let status = self.daemon.wait(END_TIME_MAX)?;
        ensure!(status.success(), "{} failed: {status}", self.daemon.name);
        let last = text.lines().last().with_context(|| format!("{} reported nothing", self.daemon.name))?;
        serde_json::from_str(last).with_context(|| format!("{} reported '{last}'", self.daemon.name))
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        &self.daemon
    }
}

/// Runs a program that has nothing to say, and gives its standard output.
pub(crate) fn call(command: &mut Command) -> Result<String> {
    let name = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("could not start {name}"))?;
    ensure!(
        output.status.success(),
        "{name} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// This program.
pub(crate) fn own_program() -> Result<PathBuf> {
    Ok(std::env::current_exe()?)
}

/// `program`, kept on one CPU where one is given.
pub(crate) fn on_cpu(cpu: Option<usize>, program: impl AsRef<std::ffi::OsStr>) -> Command {
    match cpu {
        None => Command::new(program),
        Some(cpu) => {
            let mut command = Command::new("taskset");
            command.arg("--cpu-list").arg(cpu.to_string()).arg(program);
            command
        }
    }
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A port that was free a moment ago. Its taker listens at once, and the kernel does not hand the same one out again soon.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(loopback(0))?.local_addr()?.port())
}

/// CPU time that a process has used, all threads, user and system.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold spaces; fields count from behind it. utime and stime are fields 14 and 15.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = |field: usize| -> Result<u64> { Ok(fields.get(field - 3).context("a short stat")?.parse()?) };
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64((ticks(14)? + ticks(15)?) as f64 / per_second as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_daemon_has_ended() {
        let daemon = Daemon::spawn(Command::new("sleep").arg("60")).unwrap();
        let pid = daemon.pid();
        assert!(std::fs::exists(format!("/proc/{pid}")).unwrap());
        drop(daemon);
        assert!(!std::fs::exists(format!("/proc/{pid}")).unwrap());
    }

    #[test]
    fn a_child_that_ends_early_is_reported() {
        let daemon = Daemon::spawn(&mut Command::new("false")).unwrap();
        let error = daemon.wait_until("anything", || false).unwrap_err().to_string();
        assert!(error.contains("ended"), "{error}");
    }
}
