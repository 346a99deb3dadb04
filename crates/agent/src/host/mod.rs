//! The brick in numbers: processors, memory, NUMA nodes, pressure and power, as the kernel shows them now.
//!
//! Reading them cannot fail as a whole: what the kernel does not show is absent or zero.

mod numa;
mod power;
mod pressure;

pub(crate) use numa::numa;
pub(crate) use power::power;
pub(crate) use pressure::pressure;

use std::fs;

use rackmem_api::agent::HostMemory;
use rackmem_types::Bytes;

/// Name of the host.
pub(crate) fn name() -> String {
    read("/proc/sys/kernel/hostname").map_or_else(|| "localhost".to_owned(), |name| name.trim().to_owned())
}

/// Processors that this process may use.
pub(crate) fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u32)
}

/// Memory; only what the kernel shows, the promises are the agent's.
pub(crate) fn memory() -> HostMemory {
    let text = read("/proc/meminfo").unwrap_or_default();
    HostMemory {
        total: meminfo(&text, "MemTotal:"),
        available: meminfo(&text, "MemAvailable:"),
        ..HostMemory::default()
    }
}

/// What is resident of a process.
pub(crate) fn resident(pid: u32) -> Bytes {
    let status = read(&format!("/proc/{pid}/status")).unwrap_or_default();
    meminfo(&status, "VmRSS:")
}

/// The value of a line like `MemTotal:  24 kB`.
fn meminfo(text: &str, name: &str) -> Bytes {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    Bytes(kib.unwrap_or(0) << 10)
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_a_name() {
        let memory = memory();
        assert!(memory.total > memory.available && memory.available > Bytes(0));
        assert!(resident(std::process::id()) > Bytes(0));
        assert!(cores() > 0 && !name().is_empty());
    }

    #[test]
    fn lines_are_found_by_their_whole_name() {
        let text = "MemTotal:       24 kB\nMemAvailable:   12 kB\n";
        assert_eq!(meminfo(text, "MemAvailable:"), Bytes(12 << 10));
        assert_eq!(meminfo(text, "Mem:"), Bytes(0));
    }
}
