//! What `/proc` tells of a target's memory. Paths take a thread id: the resident thread's, which works even when the
//! program's main thread has ended.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::core::PAGE;

/// Bit 63 of a pagemap entry: present; bit 62: swapped. Source: Documentation/admin-guide/mm/pagemap.rst.
const PRESENT_OR_SWAPPED: u64 = 3 << 62;

/// Writable private anonymous mappings, the program's stack excluded: what is managed.
pub(crate) fn manageable(thread: u32) -> io::Result<Vec<Range<u64>>> {
    let text = fs::read_to_string(format!("/proc/{thread}/maps"))?;
    Ok(text.lines().filter_map(manageable_line).collect())
}

/// `start-end perms offset device inode name`
fn manageable_line(line: &str) -> Option<Range<u64>> {
    let mut words = line.split_ascii_whitespace();
    let (range, permissions) = (words.next()?, words.next()?);
    let inode = words.nth(2)?;
    let name = words.next().unwrap_or_default();
    let anonymous = inode == "0" && (name.is_empty() || name == "[heap]" || name.starts_with("[anon:"));
    if permissions != "rw-p" || !anonymous {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
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

/// Whether a page is missing.
pub(crate) fn is_missing(pid: u32, address: u64) -> io::Result<bool> {
    Ok(!present(pid, address, 1)?[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_writable_private_anonymous_memory_is_manageable() {
        let check = |line: &str, expect| assert_eq!(manageable_line(line), expect, "{line}");
        check("7f00-7f10 rw-p 00000000 00:00 0 ", Some(0x7f00..0x7f10));
        check("1000-2000 rw-p 00000000 00:00 0                          [heap]", Some(0x1000..0x2000));
        check(
            "1000-2000 rw-p 00000000 00:00 0                          [anon:stack 1]",
            Some(0x1000..0x2000),
        );
        check("1000-2000 rw-p 00000000 00:00 0                          [stack]", None);
        check("1000-2000 r--p 00000000 00:00 0", None);
        check("1000-2000 rwxp 00000000 00:00 0", None);
        check("1000-2000 rw-s 00000000 00:00 0", None);
        check("1000-2000 rw-p 00002000 08:01 1234                       /usr/lib/libc.so", None);
        check("nonsense", None);
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
