//! `rackmem memory-server` as a process: it says where it listens, drains on SIGTERM, and refuses bad set-ups.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn command(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rackmem"));
    command.arg("memory-server").args(line.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts a server and reads the line that it prints once it listens.
fn start(line: &str) -> (Child, String) {
    let mut child = command(line).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    (child, said)
}

fn ends_by(mut child: Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(15) {
            child.kill().unwrap();
            panic!("the server does not end on {signal}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(child.wait().unwrap().success());
}

fn refused(line: &str, sentence: &str) {
    let output = command(line).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(sentence), "{line}: {said}");
    assert_eq!(output.status.code(), Some(1), "{line}: {said}");
}

#[test]
fn listens_where_it_says_and_ends_when_told() {
    let (child, said) = start("--size 16MiB --listen 127.0.0.1:0");
    let address = said.trim().rsplit(' ').next().unwrap();
    assert!(said.starts_with("memory server: 16MiB on 127.0.0.1:"), "{said}");
    TcpStream::connect(address).unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let files: Vec<&str> =
        limits.lines().find(|line| line.contains("open files")).unwrap().split_whitespace().collect();
    assert_eq!(files[3], files[4], "it takes all the descriptors that it may have");
    ends_by(child, Signal::SIGTERM);

    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("memory.sock");
    let (child, said) = start(&format!("--size 16MiB --listen unix:{}", socket.display()));
    assert_eq!(said, format!("memory server: 16MiB on unix:{}\n", socket.display()));
    ends_by(child, Signal::SIGINT);
}

#[test]
fn a_bad_set_up_is_refused_with_the_way_out() {
    refused("--size 16MiB --listen 0.0.0.0:0", "--insecure");
    refused("--size 0 --listen 127.0.0.1:0", "--size");
    refused("--size 16MiB --listen 127.0.0.1:0 --token-file /no/such/file", "/no/such/file");
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "").unwrap();
    refused(&format!("--size 16MiB --listen 127.0.0.1:0 --token-file {}", token.display()), "openssl rand");
}
