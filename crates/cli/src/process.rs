//! What `/proc` says of a process that somebody wants to attach to, and whether it can be a target.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, bail};

/// The capability to trace other users' processes (`linux/capability.h`).
const CAP_SYS_PTRACE: u32 = 19;

/// The parts of `/proc/PID/status` that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) is_zombie: bool,
    pub(crate) group: u32,
    pub(crate) tracer: u32,
    /// Effective user.
    pub(crate) user: u32,
    /// Kernel threads have no memory of their own.
    pub(crate) has_memory: bool,
    /// Whether it may trace any process, and so make any userfaultfd.
    pub(crate) may_trace_all: bool,
}

/// Reads a process; `None` where there is none of that id.
pub(crate) fn read(pid: u32) -> anyhow::Result<Option<Process>> {
    match fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => {
            Ok(Some(parse(&status).with_context(|| format!("cannot understand /proc/{pid}/status"))?))
        }
        // ESRCH: it ended between the open and the read.
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(3) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read /proc/{pid}/status")),
    }
}

/// This process's own entry.
pub(crate) fn myself() -> anyhow::Result<Process> {
    read(std::process::id())?.context("/proc does not list this process; is /proc mounted?")
}

fn parse(status: &str) -> Option<Process> {
    let field =
        |name: &str| status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()));
    let user = field("Uid")?.split_whitespace().nth(1)?.parse().ok()?;
    let capabilities = u64::from_str_radix(field("CapEff")?, 16).ok()?;
    Some(Process {
        name: field("Name")?.to_owned(),
        is_zombie: field("State")?.starts_with(['Z', 'X']),
        group: field("Tgid")?.parse().ok()?,
        tracer: field("TracerPid")?.parse().ok()?,
        user,
        has_memory: field("VmSize").is_some(),
        may_trace_all: capabilities & (1 << CAP_SYS_PTRACE) != 0,
    })
}

/// The process `pid`, if it is of a kind that can be attached to.
pub(crate) fn attachable(pid: u32) -> anyhow::Result<Process> {
    let Some(process) = read(pid)? else {
        bail!("there is no process {pid}: look for the program's id with 'pgrep PROGRAM' or 'ps aux'");
    };
    check(pid, &process)?;
    if is_rackmem(pid) {
        // A pager or a memory server that waits for itself would wait for ever.
        bail!("process {pid} ({}) is rackmem itself, which others wait for: choose a program", process.name);
    }
    Ok(process)
}

fn is_rackmem(pid: u32) -> bool {
    let file = |pid: &str| fs::metadata(format!("/proc/{pid}/exe")).map(|file| (file.dev(), file.ino())).ok();
    file("self").is_some_and(|own| file(&pid.to_string()) == Some(own))
}

fn check(pid: u32, process: &Process) -> anyhow::Result<()> {
    let Process { name, .. } = process;
    if process.is_zombie {
        bail!("process {pid} ({name}) has ended already; nothing of its memory is left");
    }
    if !process.has_memory {
        bail!("process {pid} ({name}) is a kernel thread, which has no memory of its own: choose a program");
    }
    if process.group != pid {
        bail!("{pid} is a thread of process {0} ({name}): attach to {0}", process.group);
    }
    if process.tracer != 0 {
        bail!(
            "process {pid} ({name}) is being traced by process {} (a debugger or strace): end that first, then attach",
            process.tracer
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tredis-server\nState:\tS (sleeping)\nTgid:\t70\nPid:\t70\nTracerPid:\t0\n\
        Uid:\t1\t1000\t1\t1\nVmSize:\t   10 kB\nCapEff:\t0000000000080000\n";

    #[test]
    fn reads_the_status_file() {
        let process = parse(STATUS).unwrap();
        assert_eq!((process.name.as_str(), process.group, process.tracer), ("redis-server", 70, 0));
        assert_eq!((process.user, process.has_memory, process.may_trace_all), (1000, true, true));
        assert!(!parse(&STATUS.replace("80000", "0")).unwrap().may_trace_all);
        assert_eq!(parse("Name:\tx\n"), None);
        assert_eq!(myself().unwrap().group, std::process::id());
        assert_eq!(read(u32::MAX).unwrap(), None);
    }

    #[test]
    fn says_why_a_process_cannot_be_a_target() {
        let check = |from: &str, to: &str, pid, sentence: &str| {
            let error = check(pid, &parse(&STATUS.replace(from, to)).unwrap()).unwrap_err().to_string();
            assert!(error.contains(sentence), "{error}");
        };
        check("S (sleeping)", "Z (zombie)", 70, "has ended already");
        check("VmSize:\t   10 kB\n", "", 70, "is a kernel thread");
        check("", "", 71, "71 is a thread of process 70");
        check("TracerPid:\t0", "TracerPid:\t5", 70, "is being traced by process 5");
        super::check(70, &parse(STATUS).unwrap()).unwrap();
        let myself = attachable(std::process::id()).unwrap_err().to_string();
        assert!(myself.contains("is rackmem itself"), "{myself}");
        assert!(attachable(u32::MAX).unwrap_err().to_string().contains("there is no process"));
    }
}
