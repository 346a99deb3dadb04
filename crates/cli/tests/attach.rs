//! `attach`, `ps`, `limit` and `detach` with a real target. Needs root, or a user whom `rackmem doctor` finds
//! ready; where neither is the case these tests fail and say so.
#![allow(clippy::unwrap_used)]

mod machine;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use machine::Machine;

/// A shell that is ended with the test.
struct Target(Child, BufReader<ChildStdout>);

impl Target {
    fn start() -> Self {
        let mut child = Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut target = Self(child, out);
        target.answers("it runs");
        target
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// Whether it still does what it is told.
    fn answers(&mut self, word: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "echo $(echo {word})").unwrap();
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), word);
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn said(output: &Output) -> String {
    let streams = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(streams).unwrap()
}

fn does(machine: &Machine, arguments: &[&str], sentence: &str) {
    let output = machine.rackmem(arguments).output().unwrap();
    assert!(output.status.success() && said(&output).contains(sentence), "{arguments:?}: {}", said(&output));
}

fn refuses(machine: &Machine, arguments: &[&str], sentence: &str) {
    let output = machine.rackmem(arguments).output().unwrap();
    assert!(said(&output).contains(sentence), "{arguments:?}: {}", said(&output));
    assert_eq!(output.status.code(), Some(1));
}

fn targets(machine: &Machine) -> Vec<serde_json::Value> {
    serde_json::from_slice(&machine.rackmem(&["ps", "--json"]).output().unwrap().stdout).unwrap()
}

#[test]
fn attach_limit_detach_and_attach_again() {
    let machine = Machine::start();
    let mut target = Target::start();
    let pid = target.pid();
    for round in ["one", "two"] {
        does(
            &machine,
            &["attach", &pid, "--local", "16MiB"],
            &format!("process {pid} (sh): attached, paused for"),
        );
        target.answers(round);
        refuses(&machine, &["attach", &pid, "--local", "16MiB"], "is already attached");
        let rows = targets(&machine);
        assert_eq!((rows.len(), rows[0]["pid"].to_string()), (1, pid.clone()));
        assert_eq!((&rows[0]["command"], &rows[0]["limit"]), (&"sh".into(), &(16 << 20).into()));
        does(&machine, &["limit", &pid, "8MiB"], "local limit 8MiB");
        assert_eq!(targets(&machine)[0]["limit"], 8 << 20);
        does(&machine, &["lend", &pid, "--far-max", "64MiB"], "has changed");
        refuses(&machine, &["lend", &pid, "--memory-server", "unix:/no/such/socket"], "/no/such/socket");
        does(&machine, &["detach", &pid], &format!("process {pid}: detached"));
        target.answers("free again");
        refuses(&machine, &["lend", &pid, "--memory-server", "a:1"], "has no far memory");
        refuses(&machine, &["detach", &pid], "has no far memory");
    }
    assert!(targets(&machine).is_empty());
}

#[test]
fn a_pager_leaves_no_files_behind() {
    let machine = Machine::start();
    let target = Target::start();
    does(&machine, &["attach", &target.pid(), "--local", "16MiB"], "attached");
    drop(target);
    let started = Instant::now();
    while std::fs::read_dir(machine.directory.path().join("run")).unwrap().count() > 0 {
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", machine.rackmem(&["ps"]).output());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_target_is_unharmed_when_attaching_fails() {
    let machine = Machine::start();
    let mut target = Target::start();
    let pid = target.pid();
    let server = "--memory-server=unix:/no/such/socket";
    refuses(&machine, &["attach", &pid, "--local", "16MiB", server], "/no/such/socket");
    refuses(
        &machine,
        &["attach", &pid, "--local", "16MiB", "--token-file", "/no/such/file"],
        "/no/such/file",
    );
    target.answers("still here");
    assert!(targets(&machine).is_empty());
}
