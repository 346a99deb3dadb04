//! `rackmem run` is not noticed between a program and its parent. Needs root, or a user whom `rackmem doctor` finds
//! ready; where neither is the case these tests fail and say so.
#![allow(clippy::unwrap_used)]

mod machine;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use machine::Machine;

fn command(machine: &Machine, program: &[&str]) -> Command {
    let mut command = machine.rackmem(&["run", "--local", "16MiB", "--"]);
    command.args(program);
    command
}

fn shell(machine: &Machine, script: &str) -> Output {
    command(machine, &["sh", "-c", script]).output().unwrap()
}

/// Starts a script and waits for its first line.
fn start(machine: &Machine, script: &str) -> (Child, BufReader<ChildStdout>) {
    let mut child = command(machine, &["sh", "-c", script]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "{:?}", child.wait_with_output());
    (child, out)
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

#[test]
fn the_exit_status_is_the_program_s() {
    let machine = Machine::start();
    let output = shell(&machine, "echo out; echo err >&2; exit 37");
    assert_eq!(output.status.code(), Some(37), "{output:?}");
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(shell(&machine, "kill -9 $$").status.signal(), Some(9));
    assert_eq!(shell(&machine, "kill -TERM $$").status.signal(), Some(15));
    assert_eq!(shell(&machine, "kill -PIPE $$").status.signal(), Some(13));
}

#[test]
fn standard_input_and_arguments_are_the_program_s() {
    let machine = Machine::start();
    let mut child = command(&machine, &["cat", "-", "/dev/null"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"through\n");
    let output = command(&machine, &["sh", "-c", "echo $0-$1-$#", "name", "--local", "-x"]).output().unwrap();
    assert_eq!(output.stdout, b"name---local-2\n", "{output:?}");
}

#[test]
fn signals_go_through() {
    let machine = Machine::start();
    let (mut child, mut out) = start(
        &machine,
        "trap 'echo usr1' USR1; trap 'echo hup' HUP; trap 'echo term; exit 5' TERM; echo ready; \
         while :; do sleep 0.02; done",
    );
    for (signal, word) in
        [(Signal::SIGUSR1, "usr1\n"), (Signal::SIGHUP, "hup\n"), (Signal::SIGTERM, "term\n")]
    {
        send(&child, signal);
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, word);
    }
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn the_wrapper_stops_and_goes_on_with_the_program() {
    let machine = Machine::start();
    let (mut child, mut out) = start(&machine, "echo ready; kill -STOP $$; echo on; exit 6");
    let stat = format!("/proc/{}/stat", child.id());
    let started = Instant::now();
    while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
        assert!(started.elapsed() < Duration::from_secs(5), "the wrapper does not stop with the program");
        std::thread::sleep(Duration::from_millis(5));
    }
    send(&child, Signal::SIGCONT);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "on\n");
    assert_eq!(child.wait().unwrap().code(), Some(6));
}

#[test]
fn a_program_does_not_run_where_far_memory_cannot_be_had() {
    let machine = Machine::start();
    let touched = machine.directory.path().join("touched");
    let output = machine
        .rackmem(&["run", "--memory-server", "unix:/no/such/socket", "--local", "16MiB", "--", "touch"])
        .arg(&touched)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.starts_with("rackmem: the program was not started: ") && said.contains("/no/such/socket"),
        "{said}"
    );
    assert!(!touched.exists());
}
