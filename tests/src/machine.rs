//! What `/proc` says of other processes. Processes come and go, so everything here answers with what there was.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// Child processes of `pid`.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// `pid` and all its descendants, parents first.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(children(*pid));
        at += 1;
    }
    found
}

/// Resident private anonymous memory of `pid`, in KiB; 0 if it is gone.
pub fn anonymous_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    field.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Resident memory of `pid` that rackmem manages, in KiB: private anonymous memory that can be written and not executed,
/// without the main stack. What is left out are private copies of file pages above all: Java has 10 MiB of them, its class
/// data archive. 0 if it is gone.
pub(crate) fn managed_kib(pid: u32) -> u64 {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let (mut is_managed, mut kib) = (false, 0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Anonymous:"), Some(value)) if is_managed => kib += value.parse().unwrap_or(0),
            (Some(name), _) if name.ends_with(':') => {}
            (_, permissions) => {
                let name = words.nth(3).unwrap_or_default();
                let is_anonymous = name.is_empty() || name == "[heap]" || name.starts_with("[anon:");
                is_managed = permissions == Some("rw-p") && is_anonymous;
            }
        }
    }
    kib
}

/// Whether `pid` runs the executable at `path`.
pub(crate) fn runs(pid: u32, path: &std::path::Path) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == path)
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = kill_process(pid, signal);
    }
}

/// What the threads of `pid` are doing: for the message of a test that ran out of time.
pub(crate) fn describe(pid: u32) -> String {
    let read = |path: String| fs::read_to_string(path).unwrap_or_default().trim().replace('\0', " ");
    let mut text = format!("process {pid}: {}\n", read(format!("/proc/{pid}/cmdline")));
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let path = task.path().display().to_string();
        let status = read(format!("{path}/status"));
        let state = status.lines().find(|line| line.starts_with("State:")).unwrap_or_default().to_owned();
        let (name, wchan) = (read(format!("{path}/comm")), read(format!("{path}/wchan")));
        let call = read(format!("{path}/syscall"));
        text += &format!("  {} {name}: {state}, waits in {wchan}, call {call}\n", task.file_name().display());
    }
    text
}

/// Whether the last thread of a process has ended: until then it has all that it had, its ports and locks as well. Whoever is to
/// wait for it may not have yet.
pub fn has_ended(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = threads.map(|thread| fs::read_to_string(thread.path().join("stat")).unwrap_or_default());
    // The state follows the name, which is in parentheses and may have any others in it.
    stats.into_iter().all(|stat| stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X'])))
}
