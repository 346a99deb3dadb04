//! A child process with a time limit, whose output is read while it runs and whose whole tree ends with it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::machine;

/// Between two looks at whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A running child. Dropping it kills it and all its descendants.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    deadline: Instant,
    lines: Receiver<String>,
    stdout: String,
    stderr: Option<JoinHandle<String>>,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Process {
    /// Starts `command`, which has to end within `limit`. Its standard input is empty unless `command` says otherwise.
    #[track_caller]
    pub fn start(command: &mut Command, limit: Duration) -> Self {
        let name = format!("{command:?}");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)).ok();
        });
        let mut stderr = child.stderr.take().expect("standard error is a pipe");
        let stderr = thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stderr.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let deadline = Instant::now() + limit;
        Self { name, child, deadline, lines, stdout: String::new(), stderr: Some(stderr) }
    }

    /// Process id of the child itself.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the child.
    pub fn signal(&self, signal: Signal) {
        machine::signal(self.pid(), signal);
    }

    /// Whether the child still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Waits until the child prints the line `expected`; others before it are kept for the end.
    #[track_caller]
    pub fn expect_line(&mut self, expected: &str) {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.keep(&line);
                    if line == expected {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.out_of_time(&format!("it did not print '{expected}'")),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait();
                    let stderr = self.stderr.take().map(|thread| thread.join().unwrap_or_default());
                    panic!(
                        "{} ended before it printed '{expected}': {status:?}\n{}",
                        self.name,
                        stderr.unwrap_or_default()
                    );
                }
            }
        }
    }

    /// Whether what it printed so far is what is looked for.
    pub fn said(&mut self, is_it: impl FnOnce(&str) -> bool) -> bool {
        while let Ok(line) = self.lines.try_recv() {
            self.keep(&line);
        }
        is_it(&self.stdout)
    }

    /// Waits for the end, and calls `watch` from time to time.
    #[track_caller]
    pub fn finish_watched(mut self, mut watch: impl FnMut(u32)) -> Ended {
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < self.deadline => {
                    watch(self.child.id());
                    thread::sleep(LOOK_EVERY);
                }
                Ok(None) => self.out_of_time("it did not end"),
                Err(error) => panic!("cannot wait for {}: {error}", self.name),
            }
        };
        // The output ends when the last descendant closes it, which must not be waited for beyond the limit.
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.keep(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => self.out_of_time("it ended but its output stays open"),
            }
        }
        let stderr = self.stderr.take().map(|thread| thread.join().unwrap_or_default()).unwrap_or_default();
        Ended { status, stdout: std::mem::take(&mut self.stdout), stderr }
    }

    fn keep(&mut self, line: &str) {
        self.stdout += line;
        self.stdout += "\n";
    }

    /// Waits for the end.
    #[track_caller]
    pub fn finish(self) -> Ended {
        self.finish_watched(|_| {})
    }

    #[track_caller]
    fn out_of_time(&mut self, what: &str) -> ! {
        let tree: String = machine::tree(self.child.id()).into_iter().map(machine::describe).collect();
        self.kill();
        let stderr = self.stderr.take().filter(JoinHandle::is_finished).map(JoinHandle::join);
        let stderr = stderr.and_then(Result::ok).unwrap_or_default();
        panic!(
            "{} ran out of time: {what}\n{tree}stdout so far:\n{}stderr:\n{stderr}",
            self.name, self.stdout
        );
    }

    fn kill(&mut self) {
        if self.is_running() {
            // Children first, while their parents still tell of them.
            machine::tree(self.child.id())
                .into_iter()
                .rev()
                .for_each(|pid| machine::signal(pid, Signal::KILL));
            let _ = self.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Ended {
    /// Panics with all that is known unless the process ended with exit code 0.
    #[track_caller]
    pub fn expect_success(self, what: &str) -> Self {
        assert!(
            self.status.success(),
            "{what}: {}\nstdout:\n{}stderr:\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }
}
