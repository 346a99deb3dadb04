//! The programs of a rack: a memory server in each memory brick, an agent in each compute brick, and the controller.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rackmem_rack::{Name, Offer};
use rustix::process::Pid;

use crate::layout::{BrickPlace, Layout};
use crate::{EmulateError, namespace};

/// A program listens within this time; an agent first looks what its machine can do.
const START: Duration = Duration::from_secs(20);

/// Between two looks at whether a program listens.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How much of a log an error shows.
const WORDS_LINES: usize = 3;

/// How the programs are started.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The `rackmem` binary.
    pub rackmem: PathBuf,
}

/// The files of one brick.
pub(crate) fn files(rack: &Path, brick: &BrickPlace) -> PathBuf {
    rack.join("bricks").join(brick.name.as_str())
}

/// The token that the programs of a rack share.
pub(crate) fn token_file(rack: &Path) -> PathBuf {
    rack.join("token")
}

/// The rack file that the controller registers.
pub(crate) fn registration_file(rack: &Path) -> PathBuf {
    rack.join("registration.toml")
}

/// Where the controller listens. A socket is reached from every namespace.
pub(crate) fn controller_socket(rack: &Path) -> PathBuf {
    rack.join("controller.sock")
}

fn controller_log(rack: &Path) -> PathBuf {
    rack.join("controller.log")
}

impl Programs {
    /// Starts what is missing in the bricks that are on, and waits until all of it listens. Gives how many were started.
    pub(crate) fn start(&self, layout: &Layout, rack: &Path) -> Result<usize, EmulateError> {
        let mut started = Vec::new();
        for brick in layout.bricks.iter().filter(|brick| brick.on) {
            if let Some((what, command)) = self.command(brick, rack)
                && !runs(&brick.namespace, command.get_args().next())
            {
                start(&brick.namespace, what, &brick.name, command)?;
                started.push((brick, what));
            }
        }
        namespace::inside(layout.management(), || {
            let until = Instant::now() + START;
            started.iter().try_for_each(|(brick, what)| wait(brick, what, rack, until))
        })?;
        Ok(started.len() + usize::from(self.start_controller(layout, rack)?))
    }

    /// Starts the controller, last, so that it finds everything; says whether that was needed.
    fn start_controller(&self, layout: &Layout, rack: &Path) -> Result<bool, EmulateError> {
        let mut command = Command::new(&self.rackmem);
        let socket = controller_socket(rack);
        let mut listen = OsString::from("unix:");
        listen.push(&socket);
        command.arg("controller").arg("--listen").arg(listen);
        command.arg("--state").arg(rack.join("controller")).arg("--rack").arg(registration_file(rack));
        let token = token_file(rack);
        command.arg("--agent-token-file").arg(&token).arg("--far-token-file").arg(&token).current_dir(rack);
        detached(&mut command, &controller_log(rack));
        if runs(layout.management(), command.get_args().next()) {
            return Ok(false);
        }
        let what = "the controller";
        start(layout.management(), what, &layout.name, command)?;
        let until = Instant::now() + START;
        while UnixStream::connect(&socket).is_err() {
            // Not by its command line: that is empty for a moment after a process was started.
            let has_ended = namespace::processes([layout.management()].into_iter()).is_empty();
            if has_ended || Instant::now() > until {
                let words = last_words(&controller_log(rack));
                return Err(EmulateError::Silent { what, brick: layout.name.clone(), words });
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(true)
    }

    /// The program of `brick` and what to call it; an accelerator brick has none.
    fn command(&self, brick: &BrickPlace, rack: &Path) -> Option<(&'static str, Command)> {
        let files = files(rack, brick);
        let token = token_file(rack);
        let mut command = Command::new(&self.rackmem);
        let listen = |address| format!("{address}:{}", brick.port);
        let what = match &brick.offers {
            Offer::Memory { size } => {
                command.arg("memory-server").arg("--size").arg(size.0.to_string());
                command.args(["--listen", &listen(brick.data)]);
                "the memory server"
            }
            Offer::Compute { local, .. } => {
                command.arg("agent").arg("--pool").arg(local.0.to_string());
                command.arg("--state").arg(files.join("agent")).arg("--far-token-file").arg(&token);
                // It is registered already; this is whom it asks for more memory.
                let mut controller = OsString::from("unix:");
                controller.push(controller_socket(rack));
                command.arg("--controller").arg(controller);
                "the agent"
            }
            Offer::Accelerator { .. } => return None,
        };
        command.args(["--listen", &listen(brick.management)]).arg("--token-file").arg(token);
        command.env("RACKMEM_RUNTIME_DIR", files.join("run")).env_remove("RACKMEM_MEMORY_SERVER");
        command.current_dir(&files);
        detached(&mut command, &files.join("log"));
        Some((what, command))
    }
}

/// What the command says goes to a log, and what a terminal sends to the command that builds the rack is not for it.
fn detached(command: &mut Command, path: &Path) {
    let log = || OpenOptions::new().create(true).append(true).open(path);
    // Without a log it still serves; what it says is lost then.
    let words = || log().map_or_else(|_| Stdio::null(), Stdio::from);
    command.stdin(Stdio::null()).stdout(words()).stderr(words()).process_group(0);
}

/// Whether a process of the namespace is `rackmem` with this subcommand. Machines and pagers of an agent that died may run on.
///
/// One that is ending is waited for: until its last thread is gone it has the port and the state that the next one needs.
fn runs(namespace: &str, subcommand: Option<&OsStr>) -> bool {
    let until = Instant::now() + START;
    // Those that are ending, or just beginning, have no command line.
    let mut nameless: Vec<Pid> = Vec::new();
    loop {
        for pid in namespace::processes([namespace].into_iter()) {
            let line = command_line(pid);
            if line.split(|byte| *byte == 0).nth(1) == subcommand.map(OsStr::as_bytes) {
                return true;
            }
            if line.is_empty() && !nameless.contains(&pid) {
                nameless.push(pid);
            }
        }
        nameless.retain(|pid| command_line(*pid).is_empty() && !namespace::has_ended(*pid));
        if nameless.is_empty() || Instant::now() > until {
            return false;
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn command_line(pid: Pid) -> Vec<u8> {
    fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default()
}

fn start(namespace: &str, what: &'static str, of: &Name, mut command: Command) -> Result<(), EmulateError> {
    namespace::inside(namespace, || {
        let started = command.spawn().map(drop);
        started.map_err(|reason| EmulateError::Start { what, brick: of.clone(), reason })
    })
}

/// Waits, on the management net, until the brick's program listens.
fn wait(brick: &BrickPlace, what: &'static str, rack: &Path, until: Instant) -> Result<(), EmulateError> {
    let address = SocketAddr::from((brick.management, brick.port));
    while TcpStream::connect_timeout(&address, START).is_err() {
        let has_ended = namespace::processes([brick.namespace.as_str()].into_iter()).is_empty();
        if has_ended || Instant::now() > until {
            let words = last_words(&files(rack, brick).join("log"));
            return Err(EmulateError::Silent { what, brick: brick.name.clone(), words });
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let words = lines[lines.len().saturating_sub(WORDS_LINES)..].join("; ");
    if words.is_empty() { "none".to_owned() } else { words }
}
