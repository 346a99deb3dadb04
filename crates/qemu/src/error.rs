//! What can go wrong with a virtual machine, as sentences for the one who asked. Where the system's or QEMU's own words
//! belong into the sentence they are its `reason`, not the error's source: who prints the chain would say them twice.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A virtual machine cannot be started, reached or changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are named in the sentences")]
pub enum QemuError {
    /// The name could not be a directory or a word of a command line.
    #[error(
        "'{0}' cannot name a virtual machine: start with a letter or digit and use only letters, digits, '-', '_' and '.', at most 64"
    )]
    Name(String),
    /// The configuration contradicts itself.
    #[error("virtual machine '{name}' cannot be made: {reason}")]
    Config { name: String, reason: String },
    /// The directory would mean another place to QEMU.
    #[error("{} is not an absolute path: give the directory of the machine's files from the root on", .0.display())]
    RelativeDirectory(PathBuf),
    /// The kernel takes no longer paths.
    #[error("the path {} is too long for a Unix socket (at most {bytes_max} bytes): use a shorter directory", path.display())]
    SocketPath { path: PathBuf, bytes_max: usize },
    /// A file that is needed cannot be read.
    #[error("{what} {} cannot be read: {reason}", path.display())]
    File { what: &'static str, path: PathBuf, reason: io::Error },
    /// The file holds no disk image.
    #[error("{} is not a disk image: {reason}", path.display())]
    NotAnImage { path: PathBuf, reason: String },
    /// The seed cannot be written.
    #[error("the cloud-init seed {} cannot be written: {reason}", path.display())]
    Seed { path: PathBuf, reason: io::Error },
    /// A program that is needed is not installed or does not run.
    #[error(
        "cannot run {program}: {reason}; install it (Debian: apt-get install {package}) or name another one"
    )]
    Program { program: PathBuf, package: &'static str, reason: io::Error },
    /// This QEMU cannot do what was asked for.
    #[error("{} (version {version}) cannot {what}: {remedy}", program.display())]
    Unable { program: PathBuf, version: String, what: String, remedy: String },
    /// It is there already.
    #[error("virtual machine '{name}' runs already, as process {pid}: stop it first")]
    AlreadyRuns { name: String, pid: u32 },
    /// QEMU ended at its start.
    #[error("QEMU did not start: {last_words}")]
    Start { last_words: String },
    /// QEMU hung at its start.
    #[error("QEMU was not ready within {} s and was killed; {last_words}", waited.as_secs())]
    StartTimeout { waited: Duration, last_words: String },
    /// The socket cannot be opened.
    #[error("the monitor at {} cannot be reached: {reason}", path.display())]
    Connect { path: PathBuf, reason: io::Error },
    /// Someone else has the monitor.
    #[error("the monitor at {place} did not greet within {} s: another client holds it, or QEMU is stopped; let that client go and try again", waited.as_secs())]
    MonitorBusy { place: String, waited: Duration },
    /// The conversation was not one.
    #[error("the monitor at {place} does not speak QMP: {reason}")]
    Protocol { place: String, reason: String },
    /// The monitor went away. A machine may still run: ask by its process id.
    #[error(
        "the connection to QEMU's monitor has ended: the machine has stopped, or another client must let go of its monitor first"
    )]
    Disconnected,
    /// No answer in time.
    #[error("QEMU did not answer {command} within {} s; it may be stopped or waiting for far memory", waited.as_secs_f32())]
    Timeout { command: String, waited: Duration },
    /// QEMU refuses.
    #[error("QEMU refuses {command}: {reason}")]
    Refused { command: String, class: String, reason: String },
    /// QEMU's answer lacks what it must have.
    #[error("QEMU's answer to {command} is not understood: {reason}")]
    Answer { command: String, reason: String },
    /// The machine has no such thing.
    #[error("the virtual machine has no {what}: {remedy}")]
    Missing { what: String, remedy: String },
    /// The address is no RAM of the guest.
    #[error("guest-physical address {address:#x} is not memory of this guest: {reason}")]
    GuestAddress { address: u64, reason: String },
    /// It does not run.
    #[error("virtual machine '{0}' does not run: start it first")]
    NotRunning(String),
    /// It would not end.
    #[error("process {pid} did not end within {} s of being killed: it waits inside the kernel", waited.as_secs())]
    WillNotEnd { pid: u32, waited: Duration },
    /// libvirt refuses.
    #[error("libvirt cannot {what}: {reason}")]
    Libvirt { what: String, reason: String },
    /// The kernel refuses.
    #[error("cannot {what}: {reason}")]
    System { what: String, reason: io::Error },
}

impl QemuError {
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |reason| Self::System { what: what.into(), reason }
    }

    pub(crate) fn program(program: &Path, reason: io::Error) -> Self {
        Self::Program { program: program.to_owned(), package: "qemu-system-x86", reason }
    }

    /// QEMU says that there is no such object, device or command: what was looked for is gone or was never there.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Refused { class, .. } => matches!(class.as_str(), "DeviceNotFound" | "CommandNotFound"),
            Self::Missing { .. } => true,
            _ => false,
        }
    }
}
