//! What the guest's kernel tells of the guest, from `/proc` and `/sys`.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use guest_probe::{Info, Memory, MemoryBlocks, Node, Ready, VirtioDevice};
use rackmem_types::Bytes;

use crate::refusal::Refusal;

const MEMINFO: &str = "/proc/meminfo";
const BLOCKS: &str = "/sys/devices/system/memory";
const NODES: &str = "/sys/devices/system/node";
const CPUS: &str = "/sys/devices/system/cpu/online";
const VIRTIO: &str = "/sys/bus/virtio/devices";

/// Kinds of virtio devices that a machine of ours may have, by their numbers in the specification (version 1.2, section 5).
const KINDS: [(u32, &str); 8] = [
    (1, "network"),
    (2, "block"),
    (3, "console"),
    (4, "entropy"),
    (5, "balloon"),
    (19, "socket"),
    (24, "memory"),
    (26, "file system"),
];

/// The probe is there.
pub(crate) fn ready(run: u32) -> Result<Ready, Refusal> {
    Ok(Ready { uptime_ms: uptime_ms()?, run })
}

/// All of it.
pub(crate) fn info(held: Bytes) -> Result<Info, Refusal> {
    Ok(Info {
        kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        uptime_ms: uptime_ms()?,
        cpus: list(&read(CPUS)?).ok_or_else(|| unclear(CPUS, "processors"))?.len() as u32,
        memory: memory()?,
        held,
        oom_kills: field(&read("/proc/vmstat")?, "oom_kill").unwrap_or(0),
        blocks: blocks()?,
        nodes: nodes()?,
        virtio: virtio_devices()?,
    })
}

/// The sizes of now.
pub(crate) fn memory() -> Result<Memory, Refusal> {
    let text = read(MEMINFO)?;
    let size = |name| field(&text, name).map(kib).ok_or_else(|| unclear(MEMINFO, name));
    Ok(Memory {
        total: size("MemTotal:")?,
        free: size("MemFree:")?,
        available: size("MemAvailable:")?,
        waited_us: None,
    })
}

fn uptime_ms() -> Result<u64, Refusal> {
    let path = "/proc/uptime";
    let text = read(path)?;
    let seconds: Option<f64> = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Ok((seconds.ok_or_else(|| unclear(path, "the time"))? * 1000.0) as u64)
}

fn blocks() -> Result<MemoryBlocks, Refusal> {
    let size = format!("{BLOCKS}/block_size_bytes");
    let text = read(&size)?;
    let bytes = u64::from_str_radix(text.trim(), 16).map_err(|_| unclear(&size, "a size"))?;
    let mut blocks = MemoryBlocks { size: Bytes(bytes), online: 0, offline: 0 };
    for (_, name) in numbered(BLOCKS, "memory")? {
        // A block may be taken away while we look.
        match fs::read_to_string(format!("{BLOCKS}/{name}/state")).as_deref().map(str::trim) {
            Ok("online") => blocks.online += 1,
            Ok(_) => blocks.offline += 1,
            Err(_) => {}
        }
    }
    Ok(blocks)
}

fn nodes() -> Result<Vec<Node>, Refusal> {
    numbered(NODES, "node")?.into_iter().map(|(number, name)| node(number, &name)).collect()
}

fn node(number: u32, name: &str) -> Result<Node, Refusal> {
    let file = |file: &str| format!("{NODES}/{name}/{file}");
    let meminfo = read(&file("meminfo"))?;
    let size = |name| field(&meminfo, name).map(kib).ok_or_else(|| unclear(&file("meminfo"), name));
    let distances = read(&file("distance"))?;
    Ok(Node {
        node: number,
        total: size("MemTotal:")?,
        free: size("MemFree:")?,
        cpus: list(&read(&file("cpulist"))?).ok_or_else(|| unclear(&file("cpulist"), "processors"))?,
        distances: numbers(&distances).ok_or_else(|| unclear(&file("distance"), "distances"))?,
    })
}

fn virtio_devices() -> Result<Vec<VirtioDevice>, Refusal> {
    numbered(VIRTIO, "virtio")?.into_iter().map(|(_, name)| virtio_device(name)).collect()
}

fn virtio_device(name: String) -> Result<VirtioDevice, Refusal> {
    let directory = format!("{VIRTIO}/{name}");
    let path = format!("{directory}/device");
    let text = read(&path)?;
    let number = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16);
    let number = number.map_err(|_| unclear(&path, "a kind of device"))?;
    let known = KINDS.iter().find(|(kind, _)| *kind == number);
    let kind = known.map_or_else(|| format!("kind {number}"), |(_, name)| (*name).to_owned());
    let driver = fs::read_link(format!("{directory}/driver")).ok();
    let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    Ok(VirtioDevice { name, kind, driver })
}

/// Entries of `directory` that are named `prefix` and a number, by the number. No directory is no entries.
fn numbered(directory: &str, prefix: &str) -> Result<Vec<(u32, String)>, Refusal> {
    if !Path::new(directory).exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(Refusal::file(directory))? {
        let name = entry.map_err(Refusal::file(directory))?.file_name().to_string_lossy().into_owned();
        if let Some(number) = name.strip_prefix(prefix).and_then(|number| number.parse().ok()) {
            found.push((number, name));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The number behind `name` in a text of lines like `MemTotal:  1024 kB` or `Node 0 MemTotal:  1024 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != name);
        words.nth(1)?.parse().ok()
    })
}

fn kib(number: u64) -> Bytes {
    Bytes(number << 10)
}

/// The kernel's lists: `0-2,5`.
fn list(text: &str) -> Option<Vec<u32>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Vec::new());
    }
    let mut all = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        all.extend(first..=last);
    }
    Some(all)
}

fn numbers<T: FromStr>(text: &str) -> Option<Vec<T>> {
    text.split_whitespace().map(|word| word.parse().ok()).collect()
}

fn read(path: &str) -> Result<String, Refusal> {
    fs::read_to_string(path).map_err(Refusal::file(path))
}

fn unclear(path: &str, what: &str) -> Refusal {
    Refusal::Unclear { path: path.to_owned(), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_fields_of_both_kinds_of_meminfo() {
        let text = "MemTotal:        1024 kB\nMemFree:     512 kB\n";
        assert_eq!(field(text, "MemFree:"), Some(512));
        assert_eq!(field("Node 1 MemTotal:     2048 kB\nNode 1 MemFree:  7 kB", "MemTotal:"), Some(2048));
        assert_eq!(field("oom_kill_x 4\noom_kill 3\n", "oom_kill"), Some(3));
        assert_eq!(field(text, "Swap:"), None);
    }

    #[test]
    fn reads_lists_of_processors() {
        assert_eq!(list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(list("\n"), Some(vec![]));
        assert_eq!(list("x"), None);
    }

    #[test]
    fn this_machine_has_memory() {
        let memory = memory().unwrap();
        assert!(memory.total >= memory.available && memory.available > Bytes(0));
    }
}
