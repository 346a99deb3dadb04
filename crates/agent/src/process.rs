//! Which process is meant. Process ids come round again; together with the time it started and the boot, one does not.

use std::fs;
use std::io;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// One process of one boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the boot (`/proc/PID/stat`, field 22).
    pub started: u64,
    /// The boot.
    pub boot: String,
}

impl ProcessId {
    /// The process that has the number now; `None` if there is none, or only its remains.
    pub fn of(pid: u32) -> Option<Self> {
        let started = started(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        Some(Self { pid, started, boot: boot()? })
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Ends it by force. It is no error if it has ended.
    pub fn kill(&self) -> io::Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let Some(pid) = Pid::from_raw(self.pid.cast_signed()) else { return Ok(()) };
        match kill_process(pid, Signal::KILL) {
            Err(error) if error != rustix::io::Errno::SRCH => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// The process whose command line has `argument` in one of its arguments.
pub fn with_argument(argument: &str) -> Option<ProcessId> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id()).find_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let has = line.split(|byte| *byte == 0).any(|one| one == argument.as_bytes());
        has.then(|| ProcessId::of(pid))?
    })
}

fn started(stat: &str) -> Option<u64> {
    // The name, in parentheses, may contain anything.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok())?
}

fn boot() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_itself_until_it_ends() {
        let mut child = Command::new("sleep").arg("3600.125").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        assert!(id.is_alive());
        assert!(!ProcessId { started: id.started - 1, ..id.clone() }.is_alive());
        // The fork has not become `sleep` at once.
        let found = (0..100).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            with_argument("3600.125")
        });
        assert_eq!(found.as_ref(), Some(&id));
        id.kill().unwrap();
        // Dead, though its parent has not buried it yet.
        while id.is_alive() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        id.kill().unwrap();
    }

    #[test]
    fn names_do_not_confuse_the_start_time() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(started(stat), Some(4242));
        assert_eq!(started(&stat.replace(" S ", " Z ")), None);
    }
}
