//! `rackmem run` is not noticed between a program and its parent. Needs root, or a user whom `rackmem doctor` finds
//! ready; where neither is the case these tests fail and say so.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A memory server on a Unix socket, and a runtime directory.
struct Setup {
    directory: tempfile::TempDir,
    server: Child,
}

fn rackmem() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rackmem"))
}

fn setup() -> Setup {
    let doctor = rackmem().arg("doctor").output().unwrap();
    assert!(
        doctor.status.success(),
        "this test needs a machine that is ready for far memory:\n{}",
        String::from_utf8_lossy(&doctor.stdout)
    );
    let directory = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}", directory.path().join("memory.sock").display());
    let mut server = rackmem()
        .args(["memory-server", "--size", "64MiB", "--listen", &listen])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("memory server"), "{line}");
    Setup { directory, server }
}

impl Setup {
    fn run(&self, program: &[&str]) -> Command {
        let server = format!("unix:{}", self.directory.path().join("memory.sock").display());
        let mut command = rackmem();
        command.env("RACKMEM_RUNTIME_DIR", self.directory.path().join("run"));
        command.args(["run", "--memory-server", &server, "--local", "16MiB", "--"]).args(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn output(&self, script: &str) -> Output {
        self.run(&["sh", "-c", script]).output().unwrap()
    }

    /// Starts a script and waits for its first line.
    fn start(&self, script: &str) -> (Child, BufReader<std::process::ChildStdout>) {
        let mut child = self.run(&["sh", "-c", script]).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{:?}", child.wait_with_output());
        (child, out)
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

#[test]
fn the_exit_status_is_the_program_s() {
    let setup = setup();
    let output = setup.output("echo out; echo err >&2; exit 37");
    assert_eq!(output.status.code(), Some(37), "{output:?}");
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(setup.output("kill -9 $$").status.signal(), Some(9));
    assert_eq!(setup.output("kill -TERM $$").status.signal(), Some(15));
    assert_eq!(setup.output("kill -PIPE $$").status.signal(), Some(13));
}

#[test]
fn standard_input_and_arguments_are_the_program_s() {
    let setup = setup();
    let mut child = setup.run(&["cat", "-", "/dev/null"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"through\n");
    let output = setup.run(&["sh", "-c", "echo $0-$1-$#", "name", "--local", "-x"]).output().unwrap();
    assert_eq!(output.stdout, b"name---local-2\n", "{output:?}");
}

#[test]
fn signals_go_through() {
    let setup = setup();
    let (mut child, mut out) = setup.start(
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
    let setup = setup();
    let (mut child, mut out) = setup.start("echo ready; kill -STOP $$; echo on; exit 6");
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
    let setup = setup();
    let touched = setup.directory.path().join("touched");
    let output = rackmem()
        .env("RACKMEM_RUNTIME_DIR", setup.directory.path().join("run"))
        .args(["run", "--memory-server", "unix:/no/such/socket", "--local", "16MiB", "--", "touch"])
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
