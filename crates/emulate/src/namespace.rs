//! Network namespaces that have names, and the processes in them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CapabilitySet, capabilities};

use crate::EmulateError;

/// Where iproute2 keeps the namespaces that have names.
const NAMESPACES: &str = "/run/netns";

/// Between two looks at whether processes have ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Whether this process may make namespaces, and what is in them.
pub(crate) fn may_be_made() -> bool {
    capabilities(None)
        .is_ok_and(|own| own.effective.contains(CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN))
}

/// Whether somebody made a namespace of this name.
pub(crate) fn exists(name: &str) -> bool {
    path(name).exists()
}

fn path(name: &str) -> PathBuf {
    Path::new(NAMESPACES).join(name)
}

/// Takes the calling thread into the namespace `name` for the rest of its life, and with it what it starts from now on.
pub fn enter(name: &str) -> Result<(), EmulateError> {
    let entered = File::open(path(name)).and_then(|file| Ok(setns(file, CloneFlags::CLONE_NEWNET)?));
    entered.map_err(|reason| EmulateError::Enter { namespace: name.to_owned(), reason })
}

/// What `work` gives when it is done inside the namespace `name`. The calling thread stays where it is.
pub(crate) fn inside<T: Send>(
    name: &str,
    work: impl FnOnce() -> Result<T, EmulateError> + Send,
) -> Result<T, EmulateError> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| enter(name).and_then(|()| work()));
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Nothing is forwarded from one device to another, and nobody gives himself an address.
pub(crate) fn make_plain(name: &str) -> Result<(), EmulateError> {
    inside(name, || {
        for (file, value) in [
            // "net" here is that of the thread that asks.
            ("ipv4/ip_forward", "0"),
            ("ipv6/conf/all/disable_ipv6", "1"),
            ("ipv6/conf/default/disable_ipv6", "1"),
        ] {
            let path = Path::new("/proc/sys/net").join(file);
            match fs::write(&path, value) {
                // A kernel without IPv6 has nothing to switch off.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(reason) => return Err(EmulateError::State { path, reason }),
                Ok(()) => {}
            }
        }
        Ok(())
    })
}

/// The processes whose network is one of the namespaces `names`, this one left out.
pub(crate) fn processes<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Pid> {
    let identity = |path: PathBuf| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let wanted: Vec<(u64, u64)> = names.filter_map(|name| identity(path(name))).collect();
    let is_wanted = |path: PathBuf| identity(path).map(|one| wanted.contains(&one));
    let is_ours = |pid: u32| {
        // A process whose first thread has ended has its sockets and locks until its last one has.
        is_wanted(format!("/proc/{pid}/ns/net").into()).unwrap_or_else(|| {
            threads(pid).into_iter().any(|thread| is_wanted(thread.join("ns/net")).unwrap_or(false))
        })
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let ours = pids.filter(|pid| *pid != std::process::id() && is_ours(*pid));
    ours.filter_map(|pid| Pid::from_raw(pid.cast_signed())).collect()
}

/// The directories of a process's threads.
fn threads(pid: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Whether the last thread of a process has ended, and so given up all that it had; whoever is to wait for it may not have yet.
pub(crate) fn has_ended(pid: Pid) -> bool {
    let has_ended = |thread: PathBuf| {
        let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
        // The state follows the name, which is in parentheses and may have any others in it.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    };
    threads(pid.as_raw_nonzero().get().cast_unsigned()).into_iter().all(has_ended)
}

/// Ends all processes in the namespaces `names`: asks them, and forces those that are there after `patience`. Gives those that
/// are there even so.
pub(crate) fn end_processes(names: &[&str], patience: Duration) -> Vec<Pid> {
    for signal in [Signal::TERM, Signal::KILL] {
        let until = Instant::now() + patience;
        let mut told: Vec<Pid> = Vec::new();
        loop {
            let there = processes(names.iter().copied());
            if there.is_empty() {
                return there;
            }
            // Also those that came since the last look: a process may have been starting another.
            for pid in there.iter().filter(|pid| !told.contains(pid)) {
                // One that has ended meanwhile is what is wanted.
                let _ = kill_process(*pid, signal);
            }
            told = there;
            if Instant::now() > until {
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
    }
    processes(names.iter().copied())
}
