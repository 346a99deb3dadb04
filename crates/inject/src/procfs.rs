//! What `/proc` tells of a process before it is entered.

use std::fs;
use std::io;

use rackmem_uapi::process::share_memory;

use crate::restart::gives_eintr;

/// How the process filters its own system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seccomp {
    /// Not at all.
    Off,
    /// Only read, write, exit and sigreturn are allowed.
    Strict,
    /// By a program of its own.
    Filter,
}

/// The lines of `/proc/PID/status` that decide whether a process can be entered.
#[derive(Clone, Debug)]
pub struct ProcessStatus {
    /// Name of the program, at most 15 bytes.
    pub name: String,
    /// Thread group: differs from the id asked for if that is a mere thread.
    pub thread_group: u32,
    /// Parent process.
    pub parent: u32,
    /// Who traces it by ptrace, 0 for nobody.
    pub tracer: u32,
    /// Real user id.
    pub user: u32,
    /// A kernel thread or a zombie has no memory of its own.
    pub has_memory: bool,
    /// One letter: R, S, D, T, t, Z, X.
    pub state: char,
    /// System call filter.
    pub seccomp: Seccomp,
    /// How many filters there are.
    pub seccomp_filters: u32,
    /// Capabilities in force, one bit each.
    pub capabilities: u64,
    /// Its id in its own pid namespace.
    pub inner_id: u32,
    /// Whether its pid namespace is ours.
    pub is_in_our_namespace: bool,
    /// A SIGCONT has come that no thread has taken yet.
    pub(crate) continue_pending: bool,
    /// Private anonymous memory that is resident, in bytes.
    pub anonymous_resident: u64,
}

/// Reads `/proc/PID/status`. `NotFound` if there is no such process.
pub fn process_status(pid: u32) -> io::Result<ProcessStatus> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .unwrap_or_default()
    };
    let number =
        |name: &str| field(name).split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let mask = |name: &str| u64::from_str_radix(field(name), 16).unwrap_or(0);
    Ok(ProcessStatus {
        name: field("Name").to_owned(),
        thread_group: number("Tgid") as u32,
        parent: number("PPid") as u32,
        tracer: number("TracerPid") as u32,
        user: number("Uid") as u32,
        has_memory: !field("VmSize").is_empty(),
        state: field("State").chars().next().unwrap_or('?'),
        seccomp: match number("Seccomp") {
            0 => Seccomp::Off,
            1 => Seccomp::Strict,
            _ => Seccomp::Filter,
        },
        seccomp_filters: number("Seccomp_filters") as u32,
        capabilities: mask("CapEff"),
        is_in_our_namespace: field("NSpid").split_whitespace().count() == 1,
        inner_id: field("NSpid").split_whitespace().last().and_then(|id| id.parse().ok()).unwrap_or(0),
        continue_pending: mask("ShdPnd") & (1 << (libc::SIGCONT - 1)) != 0,
        anonymous_resident: number("RssAnon") * 1024,
    })
}

/// Start and end of a mapping.
type Span = (u64, u64);

/// A process's executable code: the vdso, which the kernel maps into every process, and everything else.
pub(crate) fn executable_mappings(pid: u32) -> io::Result<(Option<Span>, Vec<Span>)> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let (mut vdso, mut others) = (None, Vec::new());
    for line in text.lines() {
        let is_code = line.split(' ').nth(1).is_some_and(|flags| flags.starts_with("r-x"));
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let address = |text| u64::from_str_radix(text, 16).ok();
        let Some(range) = range.and_then(|(start, end)| Some((address(start)?, address(end)?))) else {
            continue;
        };
        if is_code && line.ends_with("[vdso]") {
            vdso = Some(range);
        } else if is_code && !line.ends_with("[vsyscall]") {
            others.push(range);
        }
    }
    Ok((vdso, others))
}

/// The threads of a process, the main thread first.
pub(crate) fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let mut threads: Vec<u32> = fs::read_dir(format!("/proc/{pid}/task"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    threads.sort_unstable_by_key(|&thread| (thread != pid, thread));
    Ok(threads)
}

/// Threads that are looked at before one is chosen: enough that one of them can be stopped.
const CANDIDATES_MAX: usize = 64;

/// The threads of a process through which it could be entered, those first whom it disturbs least: they can be stopped,
/// their filters are few, they do not wait in a call that a stop ends with `EINTR`.
pub(crate) fn candidates(pid: u32) -> io::Result<Vec<u32>> {
    let mut candidates: Vec<_> = threads(pid)?
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter_map(|thread| {
            let status = process_status(thread).ok()?;
            let waits = fs::read_to_string(format!("/proc/{thread}/syscall")).unwrap_or_default();
            let number = waits.split(' ').next().and_then(|number| number.parse().ok());
            let rank = (status.state == 'D', status.seccomp_filters, number.is_some_and(gives_eintr));
            (!matches!(status.state, 'Z' | 'X')).then_some((rank, thread))
        })
        .collect();
    candidates.sort_by_key(|&(rank, _)| rank);
    Ok(candidates.into_iter().map(|(_, thread)| thread).collect())
}

/// The thread of process `pid` whose id is `inner` in the process's own pid namespace.
pub(crate) fn thread_by_inner_id(pid: u32, inner: u32) -> Option<u32> {
    let is_it = |&thread: &u32| process_status(thread).is_ok_and(|status| status.inner_id == inner);
    // A new thread has one of the highest ids.
    threads(pid).ok()?.into_iter().rev().find(is_it)
}

/// A process that runs in the same address space as `pid`, if there is one.
pub(crate) fn shares_memory(pid: u32) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?;
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|&other| other != pid && share_memory(pid, other).unwrap_or(false))
}

/// Whether nothing of a process runs any more.
pub(crate) fn is_gone(pid: u32) -> bool {
    threads(pid).map_or(true, |threads| threads.into_iter().all(is_zombie))
}

/// Whether the process has been told to continue (SIGCONT) while all its signals were blocked.
pub(crate) fn is_continued(pid: u32) -> bool {
    process_status(pid).is_ok_and(|status| status.continue_pending)
}

/// State of a thread, one letter: R, S, D, T, t, Z, X. `None` if it has gone.
pub(crate) fn state(thread: u32) -> Option<char> {
    process_status(thread).ok().map(|status| status.state)
}

/// Whether the process was told to stop, by a signal or by job control.
pub(crate) fn is_stopped(pid: u32) -> bool {
    state(pid) == Some('T')
}

/// Whether a thread has ended and only waits to be collected.
pub(crate) fn is_zombie(thread: u32) -> bool {
    state(thread) == Some('Z')
}
