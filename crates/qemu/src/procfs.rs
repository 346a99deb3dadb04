//! Processes as the kernel shows them: which one a number means, and whether it still lives.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for a later one with the same number, while the host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's ticks since the host booted.
    pub started_ticks: u64,
}

impl ProcessIdentity {
    /// Of the process that has this number now; nothing if there is none, or only its remains.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let started_ticks = started_in(&stat)?;
        Some(Self { pid, started_ticks })
    }

    /// Whether this very process still lives.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }
}

/// The start time in a line of `/proc/PID/stat`; nothing for a zombie. The second field is the program's name in
/// parentheses, which may itself contain anything.
fn started_in(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    // Field 22; the state was field 3.
    fields.nth(18)?.parse().ok()
}

/// Whether the process was started with `flag value` among its arguments. The value alone says nothing: a program that asks
/// about a machine, or an editor, names it too.
pub(crate) fn has_option(pid: u32, flag: &str, value: impl AsRef<OsStr>) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let words: Vec<_> = line.split(|byte| *byte == 0).collect();
    words.windows(2).any(|pair| pair == [flag.as_bytes(), value.as_ref().as_bytes()])
}

/// Processes that were started with `flag value` among their arguments.
pub(crate) fn with_option(flag: &str, value: impl AsRef<OsStr>) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| has_option(*pid, flag, value.as_ref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_itself_and_lives() {
        let this = ProcessIdentity::of(std::process::id()).unwrap();
        assert!(this.is_alive());
        assert!(!ProcessIdentity { started_ticks: this.started_ticks + 1, ..this }.is_alive());
    }

    #[test]
    fn an_option_is_a_flag_and_its_value() {
        let mut child = std::process::Command::new("sleep").args(["60", "7"]).spawn().unwrap();
        while !has_option(child.id(), "60", "7") {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(!has_option(child.id(), "7", "60") && !has_option(child.id(), "-uuid", "7"));
        assert!(with_option("60", "7").contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(started_in(&format!("42 (a) b) (c) {tail}")), Some(4711));
        assert_eq!(started_in("42 (qemu) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711"), None);
        assert_eq!(started_in("42 (qemu"), None);
    }
}
