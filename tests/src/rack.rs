//! A memory server on loopback and the `rackmem` commands that use it.

use std::ffi::OsStr;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
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

/// Memory servers, and a runtime directory of their own so that tests do not see each other's targets.
#[derive(Debug)]
pub struct Rack {
    servers: Vec<Process>,
    address: String,
    directory: TempDir,
}

impl Rack {
    /// Starts a memory server on a free port of the loopback device.
    #[track_caller]
    pub fn start() -> Self {
        Self::empty().with_tcp_server()
    }

    /// Starts two, so that pages are striped over them.
    #[track_caller]
    pub fn start_two() -> Self {
        Self::empty().with_tcp_server().with_tcp_server()
    }

    /// Starts a memory server on a Unix socket, which is reached by `unix:` or by `shm:`.
    #[track_caller]
    pub fn start_local(scheme: &str) -> Self {
        let mut rack = Self::empty();
        let socket = rack.directory().join("server.sock");
        rack.start_server(&format!("unix:{}", socket.display()), || UnixStream::connect(&socket).is_ok());
        rack.address = format!("{scheme}:{}", socket.display());
        rack
    }

    fn empty() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        Self { servers: Vec::new(), address: String::new(), directory }
    }

    #[track_caller]
    fn with_tcp_server(mut self) -> Self {
        let address = free_address();
        self.start_server(&address, || TcpStream::connect(&address).is_ok());
        if !self.address.is_empty() {
            self.address += ",";
        }
        self.address += &address;
        self
    }

    #[track_caller]
    fn start_server(&mut self, listen: &str, answers: impl Fn() -> bool) {
        let mut command = self.command(["memory-server", "--size", POOL, "--listen", listen]);
        let mut server = Process::start(&mut command, TEST);
        let started = Instant::now();
        while !answers() {
            if !server.is_running() {
                let ended = server.finish();
                panic!("the memory server did not start: {}\n{}{}", ended.status, ended.stdout, ended.stderr);
            }
            assert!(started.elapsed() < START, "the memory server does not listen on {listen}");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.servers.push(server);
    }

    /// Kills one of the memory servers.
    pub fn kill_server(&self, number: usize) {
        self.servers[number].signal(Signal::KILL);
    }

    /// Kills all memory servers, as when the machine loses power.
    pub fn kill_servers(&mut self) {
        self.servers.clear();
    }

    /// Where the memory servers are, as `--memory-server` takes it.
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

    /// The one target that there is.
    #[track_caller]
    pub fn target(&self) -> u32 {
        let rows: Value =
            serde_json::from_str(&self.quick(&["ps", "--json"]).stdout).expect("ps --json prints JSON");
        let pid = rows[0]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.unwrap_or_else(|| panic!("there is no target: {rows}"))
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
        // Servers are asked to end first: what a killed one leaves behind is for other tests.
        self.servers.iter().for_each(|server| server.signal(Signal::TERM));
        let asked = Instant::now();
        while self.servers.iter_mut().any(Process::is_running) && asked.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// An address on the loopback device that nobody listens on.
pub fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback device has a free port");
    listener.local_addr().expect("a bound socket has an address").to_string()
}

/// Two compute and two memory bricks at one switch: c1 at port 0, c2 at 1, m1 at 4, m2 at 5.
pub const SMALL_RACK: &str = r#"
rack = [{ name = "r1" }]
tray = [{ name = "t1", rack = "r1" }]
compute = [
    { name = "c1", tray = "t1", cores = 1, local = "256MiB", ports = 1 },
    { name = "c2", tray = "t1", cores = 1, local = "256MiB", ports = 1 },
]
memory = [
    { name = "m1", tray = "t1", size = "1GiB", ports = 1 },
    { name = "m2", tray = "t1", size = "1GiB", ports = 1 },
]
switch = [{ name = "s1", tray = "t1", kind = "circuit", ports = 6 }]
cable = [
    { ends = ["c1:0", "s1:0"] },
    { ends = ["c2:0", "s1:1"] },
    { ends = ["m1:0", "s1:4"] },
    { ends = ["m2:0", "s1:5"] },
]
"#;
