//! A memory server on loopback and the `rackmem` commands that use it.

use std::ffi::OsStr;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Ended, Process};

/// What a memory server lends: far more than any test needs; it fills only as pages arrive.
const POOL: &str = "8GiB";

/// A memory server has to listen within this time.
const START: Duration = Duration::from_secs(10);

/// No test takes longer than this, memory server included.
const TEST: Duration = Duration::from_secs(300);

/// A command that does not run a program has to end within this time.
const COMMAND: Duration = Duration::from_secs(60);

/// The binary under test: `$RACKMEM_BIN`, or the one built beside the tests.
#[track_caller]
pub fn rackmem() -> PathBuf {
    let beside = || {
        let test = std::env::current_exe().expect("the test knows its own path");
        test.ancestors().nth(2).expect("tests are built into target/PROFILE/deps").join("rackmem")
    };
    let path = std::env::var_os("RACKMEM_BIN").map_or_else(beside, PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not there: build it with 'cargo build --bin rackmem', or name another with RACKMEM_BIN",
        path.display()
    );
    path.canonicalize().expect("the binary's path can be resolved")
}

/// One memory server, and a runtime directory of its own so that tests do not see each other's targets.
#[derive(Debug)]
pub struct Rack {
    server: Option<Process>,
    address: String,
    directory: TempDir,
}

impl Rack {
    /// Starts a memory server on a free port of the loopback device.
    #[track_caller]
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let address = free_address();
        let mut server = Process::start(
            Command::new(rackmem())
                .args(["memory-server", "--size", POOL, "--listen", &address])
                .env("RACKMEM_RUNTIME_DIR", directory.path())
                .stdin(Stdio::null()),
            TEST,
        );
        let started = Instant::now();
        while TcpStream::connect(&address).is_err() {
            if !server.is_running() {
                let ended = server.finish();
                panic!("the memory server did not start: {}\n{}{}", ended.status, ended.stdout, ended.stderr);
            }
            assert!(started.elapsed() < START, "the memory server does not listen on {address}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { server: Some(server), address, directory }
    }

    /// `HOST:PORT` of the memory server.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A directory that lives as long as the rack.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// `rackmem` with `arguments`, in the rack's environment.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(rackmem());
        command.args(arguments).env("RACKMEM_RUNTIME_DIR", self.directory.path()).stdin(Stdio::null());
        command
    }

    /// `rackmem run` of `program` with `local_mib` MiB local; more options may be given.
    pub fn run<A: AsRef<OsStr>>(&self, local_mib: u64, options: &[&str], program: &[A]) -> Command {
        let mut command = self.command(["run", "--memory-server", &self.address]);
        command.arg("--local").arg(format!("{local_mib}MiB")).args(options).arg("--").args(program);
        command
    }

    /// `rackmem attach`; it has to succeed.
    #[track_caller]
    pub fn attach(&self, pid: u32, local_mib: u64) -> Ended {
        let (pid, local) = (pid.to_string(), format!("{local_mib}MiB"));
        self.quick(&["attach", &pid, "--memory-server", &self.address, "--local", &local])
    }

    /// A command that has to succeed soon.
    #[track_caller]
    pub fn quick(&self, arguments: &[&str]) -> Ended {
        let ended = Process::start(&mut self.command(arguments), COMMAND).finish();
        ended.expect_success(&format!("rackmem {}", arguments.join(" ")))
    }

    /// What `rackmem ps --json` says of the target `pid`.
    #[track_caller]
    pub fn stats(&self, pid: u32) -> Value {
        let text = self.quick(&["ps", "--json"]).stdout;
        let rows: Value = serde_json::from_str(&text).expect("ps --json prints JSON");
        let rows = rows.as_array().expect("ps --json prints an array");
        let row = rows.iter().find(|row| row["pid"].as_u64() == Some(pid.into()));
        row.unwrap_or_else(|| panic!("ps does not list process {pid}: {text}")).clone()
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        server.signal(Signal::TERM);
        let asked = Instant::now();
        while server.is_running() && asked.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// An address on the loopback device that nobody listens on.
pub fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback device has a free port");
    listener.local_addr().expect("a bound socket has an address").to_string()
}
