//! What `/proc` tells of a target's memory. Paths take a thread id: the resident thread's, which works even when the
//! program's main thread has ended.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::core::PAGE;

/// Bit 63 of a pagemap entry: present; bit 62: swapped. Source: Documentation/admin-guide/mm/pagemap.rst.
const PRESENT_OR_SWAPPED: u64 = 3 << 62;

/// A range of addresses without mappings that cannot be registered, and what in it can be managed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) range: Range<u64>,
    /// Writable private anonymous mappings.
    pub(crate) mappings: Vec<Range<u64>>,
}

/// What can be managed: writable private anonymous memory, the program's stack excluded, by spans.
pub(crate) fn spans(thread: u32) -> io::Result<Vec<Span>> {
    Ok(spans_of(&fs::read_to_string(format!("/proc/{thread}/maps"))?))
}

fn spans_of(text: &str) -> Vec<Span> {
    let mut spans = vec![Span { range: 0..0, mappings: Vec::new() }];
    for (range, kind) in text.lines().filter_map(parse_line) {
        let span = spans.last_mut().expect("there is a first one");
        if kind != Kind::Foreign {
            if span.mappings.is_empty() && span.range.start == 0 {
                span.range.start = range.start;
            }
            span.range.end = range.end;
        }
        match kind {
            Kind::Manageable => span.mappings.push(range),
            Kind::Anonymous => {}
            Kind::Foreign => {
                if span.range.start != 0 {
                    span.range.end = range.start;
                }
                spans.push(Span { range: range.end..range.end, mappings: Vec::new() });
            }
        }
    }
    spans.retain(|span| !span.mappings.is_empty());
    spans
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Writable private anonymous memory.
    Manageable,
    /// Private anonymous memory that is not writable now.
    Anonymous,
    /// Everything else.
    Foreign,
}

/// `start-end perms offset device inode name`
fn parse_line(line: &str) -> Option<(Range<u64>, Kind)> {
    let mut words = line.split_ascii_whitespace();
    let (range, permissions) = (words.next()?, words.next()?);
    let inode = words.nth(2)?;
    let name = words.next().unwrap_or_default();
    let anonymous = inode == "0" && (name.is_empty() || name == "[heap]" || name.starts_with("[anon:"));
    let kind = match permissions {
        "rw-p" if anonymous => Kind::Manageable,
        _ if anonymous && permissions.ends_with('p') => Kind::Anonymous,
        _ => Kind::Foreign,
    };
    let (start, end) = range.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?, kind))
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
        let check = |line: &str, expect: Option<Kind>| {
            assert_eq!(parse_line(line).map(|(_, kind)| kind), expect, "{line}");
        };
        check("7f00-7f10 rw-p 00000000 00:00 0 ", Some(Kind::Manageable));
        check("1000-2000 rw-p 00000000 00:00 0                          [heap]", Some(Kind::Manageable));
        check(
            "1000-2000 rw-p 00000000 00:00 0                          [anon:stack 1]",
            Some(Kind::Manageable),
        );
        check("1000-2000 rw-p 00000000 00:00 0                          [stack]", Some(Kind::Foreign));
        check("1000-2000 ---p 00000000 00:00 0", Some(Kind::Anonymous));
        check("1000-2000 rwxp 00000000 00:00 0", Some(Kind::Anonymous));
        check("1000-2000 rw-s 00000000 00:00 0", Some(Kind::Foreign));
        check(
            "1000-2000 rw-p 00002000 08:01 1234                       /usr/lib/libc.so",
            Some(Kind::Foreign),
        );
        check("nonsense", None);
    }

    #[test]
    fn a_span_reaches_from_one_foreign_mapping_to_the_next() {
        let lines =
            ["rw-p 0 00:00 0", "r--p 0 08:01 7 /lib", "rw-p 0 00:00 0", "---p 0 00:00 0", "rw-p 0 00:00 0"];
        let at = |i: usize| (i as u64 + 1) * 0x2000..(i as u64 + 1) * 0x2000 + 0x1000;
        let text: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(i, line)| format!("{:x}-{:x} {line}", at(i).start, at(i).end))
            .collect();
        let spans = spans_of(&text.join("\n"));
        assert_eq!(spans[0], Span { range: 0x2000..0x4000, mappings: vec![at(0)] });
        assert_eq!(spans[1], Span { range: 0x5000..0xb000, mappings: vec![at(2), at(4)] });
        assert_eq!(spans.len(), 2);
    }

    #[test]
    fn our_own_memory_is_there() {
        let value = [1u8; 8192];
        let here = present(std::process::id(), value.as_ptr() as u64 & !(PAGE - 1), 1).unwrap();
        assert_eq!(here, [true]);
        assert!(sizes(std::process::id()).unwrap().0 > 0);
        assert!(!spans(std::process::id()).unwrap().is_empty());
    }
}
