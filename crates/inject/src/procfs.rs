//! What `/proc` tells of a process before it is entered.

use std::fs;
use std::io;

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
        anonymous_resident: number("RssAnon") * 1024,
    })
}

/// Executable mappings as (start, end, name), the vdso first: its code never changes.
pub(crate) fn executable_mappings(pid: u32) -> io::Result<Vec<(u64, u64)>> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut found: Vec<(bool, u64, u64)> = text
        .lines()
        .filter(|line| {
            line.split(' ').nth(1).is_some_and(|flags| flags.starts_with("r-x"))
                && !line.ends_with("[vsyscall]")
        })
        .filter_map(|line| {
            let (start, end) = line.split(' ').next()?.split_once('-')?;
            let start = u64::from_str_radix(start, 16).ok()?;
            let end = u64::from_str_radix(end, 16).ok()?;
            Some((!line.ends_with("[vdso]"), start, end))
        })
        .collect();
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, start, end)| (start, end)).collect())
}

/// The threads of a process, the main thread first.
pub(crate) fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let mut threads: Vec<u32> = fs::read_dir(format!("/proc/{pid}/task"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    threads.sort_unstable_by_key(|&thread| (thread != pid, thread));
    Ok(threads)
}

/// Whether a thread has ended and only waits to be collected.
pub(crate) fn is_zombie(thread: u32) -> bool {
    process_status(thread).is_ok_and(|status| status.state == 'Z')
}
