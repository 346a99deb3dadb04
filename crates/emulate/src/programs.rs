//! The programs of bricks: a memory server in each memory brick, an agent in each compute brick.

use std::fs::{self, OpenOptions};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rackmem_rack::Offer;

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

impl Programs {
    /// Starts what is missing in the bricks that are on, and waits until all of it listens. Gives how many were started.
    pub(crate) fn start(&self, layout: &Layout, rack: &Path) -> Result<usize, EmulateError> {
        let mut started = Vec::new();
        for brick in layout.bricks.iter().filter(|brick| brick.on) {
            if let Some((what, command)) = self.command(brick, rack)
                && namespace::processes([brick.namespace.as_str()].into_iter()).is_empty()
            {
                start(brick, what, command)?;
                started.push((brick, what));
            }
        }
        namespace::inside(layout.management(), || {
            let until = Instant::now() + START;
            started.iter().try_for_each(|(brick, what)| wait(brick, what, rack, until))
        })?;
        Ok(started.len())
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
                "the agent"
            }
            Offer::Accelerator { .. } => return None,
        };
        command.args(["--listen", &listen(brick.management)]).arg("--token-file").arg(token);
        command.env("RACKMEM_RUNTIME_DIR", files.join("run")).env_remove("RACKMEM_MEMORY_SERVER");
        command.current_dir(&files).stdin(Stdio::null());
        let log = |path: PathBuf| OpenOptions::new().create(true).append(true).open(path);
        // Without a log it still serves; what it says is lost then.
        let words = || log(files.join("log")).map_or_else(|_| Stdio::null(), Stdio::from);
        command.stdout(words()).stderr(words());
        // What a terminal sends to the command that builds the rack is not for the rack.
        command.process_group(0);
        Some((what, command))
    }
}

fn start(brick: &BrickPlace, what: &'static str, mut command: Command) -> Result<(), EmulateError> {
    namespace::inside(&brick.namespace, || {
        let started = command.spawn().map(drop);
        started.map_err(|reason| EmulateError::Start { what, brick: brick.name.clone(), reason })
    })
}

/// Waits, on the management net, until the brick's program listens.
fn wait(brick: &BrickPlace, what: &'static str, rack: &Path, until: Instant) -> Result<(), EmulateError> {
    let address = SocketAddr::from((brick.management, brick.port));
    while TcpStream::connect_timeout(&address, START).is_err() {
        let alone = namespace::processes([brick.namespace.as_str()].into_iter()).is_empty();
        if alone || Instant::now() > until {
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
