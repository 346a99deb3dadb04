//! What `/proc` tells of a target's memory. Paths take a thread id: the resident thread's, which works even when the
//! program's main thread has ended.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::core::PAGE;

/// Bit 63 of a pagemap entry: present; bit 62: swapped. Source: Documentation/admin-guide/mm/pagemap.rst.
const PRESENT_OR_SWAPPED: u64 = 3 << 62;

/// A mapping that can be managed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) range: Range<u64>,
    /// Where the next mapping begins: up to there it may have grown since.
    pub(crate) room_end: u64,
}

/// Writable private anonymous mappings, the program's stack excluded: what is managed.
pub(crate) fn manageable(thread: u32) -> io::Result<Vec<Mapping>> {
    Ok(manageable_lines(&fs::read_to_string(format!("/proc/{thread}/maps"))?))
}

fn manageable_lines(text: &str) -> Vec<Mapping> {
    let mut found = Vec::new();
    let mut next_start = u64::MAX;
    for line in text.lines().rev() {
        let Some((range, manageable)) = parse_line(line) else { continue };
        let start = range.start;
        if manageable {
            let room_end = if next_start == u64::MAX { range.end } else { next_start };
            found.push(Mapping { range, room_end });
        }
        next_start = start;
    }
    found.reverse();
    found
}

/// `start-end perms offset device inode name`: the range, and whether it can be managed.
fn parse_line(line: &str) -> Option<(Range<u64>, bool)> {
    let mut words = line.split_ascii_whitespace();
    let (range, permissions) = (words.next()?, words.next()?);
    let inode = words.nth(2)?;
    let name = words.next().unwrap_or_default();
    let anonymous = inode == "0" && (name.is_empty() || name == "[heap]" || name.starts_with("[anon:"));
    let (start, end) = range.split_once('-')?;
    let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
    Some((range, permissions == "rw-p" && anonymous))
}

/// Whether a process has the ring of a resident thread mapped: it is entered, or shares its memory with one that is.
pub(crate) fn is_entered(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/maps"))
        .is_ok_and(|text| text.contains("/memfd:rackmem (deleted)"))
}

/// Size and data size in pages: they change whenever a mapping that could be managed comes, goes or becomes writable.
pub(crate) fn sizes(thread: u32) -> io::Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{thread}/statm"))?;
    let mut words = text.split_ascii_whitespace().map(|word| word.parse().unwrap_or(0));
    Ok((words.next().unwrap_or(0), words.nth(4).unwrap_or(0)))
}

/// Child processes of all threads of `pid`.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .flat_map(|text| {
            text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}

/// A process's page map, kept open.
pub(crate) struct PageMap(File);

impl PageMap {
    pub(crate) fn open(thread: u32) -> io::Result<Self> {
        Ok(Self(File::open(format!("/proc/{thread}/pagemap"))?))
    }

    /// For each of `count` pages from `address` on, whether it is there.
    pub(crate) fn present(&self, address: u64, count: usize) -> io::Result<Vec<bool>> {
        let mut bytes = vec![0; count * 8];
        self.0.read_exact_at(&mut bytes, address / PAGE * 8)?;
        let (entries, _) = bytes.as_chunks::<8>();
        Ok(entries.iter().map(|entry| u64::from_ne_bytes(*entry) & PRESENT_OR_SWAPPED != 0).collect())
    }
}

/// For each of `count` pages from `address` on, whether it is there.
pub(crate) fn present(thread: u32, address: u64, count: usize) -> io::Result<Vec<bool>> {
    PageMap::open(thread)?.present(address, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_writable_private_anonymous_memory_is_manageable() {
        let check = |line: &str, expect: Option<bool>| {
            assert_eq!(parse_line(line).map(|(_, manageable)| manageable), expect, "{line}");
        };
        check("7f00-7f10 rw-p 00000000 00:00 0 ", Some(true));
        check("1000-2000 rw-p 00000000 00:00 0                          [heap]", Some(true));
        check("1000-2000 rw-p 00000000 00:00 0                          [anon:stack 1]", Some(true));
        check("1000-2000 rw-p 00000000 00:00 0                          [stack]", Some(false));
        check("1000-2000 r--p 00000000 00:00 0", Some(false));
        check("1000-2000 rwxp 00000000 00:00 0", Some(false));
        check("1000-2000 rw-s 00000000 00:00 0", Some(false));
        check("1000-2000 rw-p 00002000 08:01 1234                       /usr/lib/libc.so", Some(false));
        check("nonsense", None);
    }

    #[test]
    fn a_mapping_has_room_up_to_the_next_one() {
        let text = "1000-2000 rw-p 0 00:00 0\n5000-6000 r--p 0 00:00 0\n6000-7000 rw-p 0 00:00 0\n";
        let found = manageable_lines(text);
        assert_eq!(found[0], Mapping { range: 0x1000..0x2000, room_end: 0x5000 });
        assert_eq!(found[1], Mapping { range: 0x6000..0x7000, room_end: 0x7000 }, "the last one has none");
    }

    #[test]
    fn our_own_memory_is_there() {
        let value = [1u8; 8192];
        let here = present(std::process::id(), value.as_ptr() as u64 & !(PAGE - 1), 1).unwrap();
        assert_eq!(here, [true]);
        assert!(sizes(std::process::id()).unwrap().0 > 0);
        assert!(!manageable(std::process::id()).unwrap().is_empty());
    }
}
