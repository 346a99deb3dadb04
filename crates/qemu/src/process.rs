//! QEMU processes: started so that they outlive whoever starts them, found again by whoever comes after, and ended without
//! ever hitting another process that got the same number.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::command_line::PIDFILE_FLAG;
use crate::procfs::{has_option, with_option};
use crate::{Ended, MachineFiles, ProcessIdentity, QemuError, Result};

/// A QEMU without a guest that runs is ready in a tenth of a second; a host that is out of memory or swaps takes its time.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a QEMU that is just starting is looked at.
const START_POLL: Duration = Duration::from_millis(20);

/// A killed process is gone when the kernel has given its memory back: 64 GiB take it some seconds.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

/// So much of what QEMU said last is in an error.
const LAST_WORDS_BYTES_MAX: u64 = 2000;

/// Starts QEMU with arguments that send it into a session of its own, and waits until it is ready.
pub(crate) async fn start(
    program: &Path,
    arguments: Vec<std::ffi::OsString>,
    files: &MachineFiles,
) -> Result<ProcessIdentity> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(files.log())
        .map_err(|reason| QemuError::File { what: "the log", path: files.log(), reason })?;
    let said_before = log.metadata().map_or(0, |metadata| metadata.len());
    let errors = log.try_clone().map_err(QemuError::system("share the log with QEMU"))?;
    let mut launcher = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|reason| QemuError::program(program, reason))?;
    let words = || said_since(files, said_before).unwrap_or_else(|| "it left no word".to_owned());
    let Ok(ended) = timeout(START_TIMEOUT, launcher.wait()).await else {
        for pid in with_option(PIDFILE_FLAG, files.pid()) {
            if let Some(process) = ProcessIdentity::of(pid) {
                kill(process, Duration::ZERO).await?;
            }
        }
        return Err(QemuError::StartTimeout { waited: START_TIMEOUT, last_words: words() });
    };
    let ended = ended.map_err(QemuError::system("wait for QEMU"))?;
    match named_in_pidfile(files) {
        Some(process) if ended.success() => Ok(process),
        _ => Err(QemuError::Start { last_words: words() }),
    }
}

/// Finds the QEMU of these files, also one that is just starting; nothing if there is none.
pub(crate) async fn find(files: &MachineFiles) -> Option<ProcessIdentity> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Some(process) = named_in_pidfile(files) {
            return Some(process);
        }
        if with_option(PIDFILE_FLAG, files.pid()).is_empty() || Instant::now() >= deadline {
            return None;
        }
        sleep(START_POLL).await;
    }
}

/// The process in the pidfile, if it is one of these files' and not a later one with its number.
fn named_in_pidfile(files: &MachineFiles) -> Option<ProcessIdentity> {
    let pid = std::fs::read_to_string(files.pid()).ok()?.trim().parse().ok()?;
    let process = ProcessIdentity::of(pid)?;
    has_option(pid, PIDFILE_FLAG, files.pid()).then_some(process)
}

/// What QEMU said last on its standard error, for a machine that came to an unexpected end. Nothing if it was silent.
pub fn last_words(files: &MachineFiles) -> Option<String> {
    said_since(files, 0)
}

fn said_since(files: &MachineFiles, offset: u64) -> Option<String> {
    let mut log = File::open(files.log()).ok()?;
    let length = log.metadata().ok()?.len();
    log.seek(SeekFrom::Start(offset.max(length.saturating_sub(LAST_WORDS_BYTES_MAX)))).ok()?;
    let mut said = Vec::new();
    log.take(LAST_WORDS_BYTES_MAX).read_to_end(&mut said).ok()?;
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    (!said.is_empty()).then_some(said)
}

/// Returns when the process has ended; at once if it has already.
pub async fn wait(process: ProcessIdentity) -> Result<()> {
    let Some(descriptor) = open(process)? else { return Ok(()) };
    wait_for(&descriptor).await
}

/// Ends a process: politely, and after `patience` by force.
pub async fn kill(process: ProcessIdentity, patience: Duration) -> Result<Ended> {
    let Some(descriptor) = open(process)? else { return Ok(Ended::WasOff) };
    if patience > Duration::ZERO {
        signal(&descriptor, Signal::TERM)?;
        if timeout(patience, wait_for(&descriptor)).await.is_ok() {
            return Ok(Ended::Quit);
        }
    }
    signal(&descriptor, Signal::KILL)?;
    match timeout(KILL_TIMEOUT, wait_for(&descriptor)).await {
        Ok(ended) => ended.map(|()| Ended::Killed),
        Err(_) => Err(QemuError::WillNotEnd { pid: process.pid, waited: KILL_TIMEOUT }),
    }
}

/// A descriptor of the process; nothing if it has ended.
#[expect(
    deprecated,
    reason = "it is deprecated because a descriptor could close too early; this one is owned"
)]
fn open(process: ProcessIdentity) -> Result<Option<AsyncFd<OwnedFd>>> {
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(QemuError::system("watch a process")(error.into())),
    };
    // Only now is it certain which process the descriptor means.
    if !process.is_alive() {
        return Ok(None);
    }
    AsyncFd::with_interest(descriptor, Interest::READABLE)
        .map(Some)
        .map_err(QemuError::system("watch a process"))
}

async fn wait_for(descriptor: &AsyncFd<OwnedFd>) -> Result<()> {
    descriptor.readable().await.map(drop).map_err(QemuError::system("wait for a process"))
}

fn signal(descriptor: &AsyncFd<OwnedFd>, signal: Signal) -> Result<()> {
    match pidfd_send_signal(descriptor.get_ref(), signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(QemuError::system("end a process")(io::Error::from(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(script: &str) -> (tokio::process::Child, ProcessIdentity) {
        let child = Command::new("sh").args(["-c", script]).kill_on_drop(true).spawn().unwrap();
        let process = ProcessIdentity::of(child.id().unwrap()).unwrap();
        (child, process)
    }

    #[tokio::test]
    async fn a_process_that_listens_ends_politely() {
        let (mut child, process) = child("exec sleep 60");
        let (ended, _) = tokio::join!(kill(process, Duration::from_secs(10)), child.wait());
        assert_eq!(ended.unwrap(), Ended::Quit);
        assert_eq!(kill(process, Duration::ZERO).await.unwrap(), Ended::WasOff);
        wait(process).await.unwrap();
    }

    #[tokio::test]
    async fn a_process_that_does_not_listen_is_killed() {
        let (mut child, process) = child("trap '' TERM; echo > /dev/null; while :; do sleep 0.05; done");
        sleep(Duration::from_millis(300)).await;
        let (ended, _) = tokio::join!(kill(process, Duration::from_millis(200)), child.wait());
        assert_eq!(ended.unwrap(), Ended::Killed);
    }

    #[tokio::test]
    async fn a_later_process_with_the_same_number_is_left_alone() {
        let (mut child, process) = child("exec sleep 60");
        let earlier = ProcessIdentity { started_ticks: process.started_ticks - 1, ..process };
        assert_eq!(kill(earlier, Duration::ZERO).await.unwrap(), Ended::WasOff);
        assert!(process.is_alive());
        child.kill().await.unwrap();
    }

    #[tokio::test]
    async fn files_without_a_process_have_none() {
        let directory = tempfile::tempdir().unwrap();
        let files = MachineFiles::new(directory.path()).unwrap();
        assert_eq!(find(&files).await, None);
        // This process lives, but was not started with these files.
        std::fs::write(files.pid(), format!("{}\n", std::process::id())).unwrap();
        assert_eq!(find(&files).await, None);
        assert_eq!(last_words(&files), None);
    }
}
