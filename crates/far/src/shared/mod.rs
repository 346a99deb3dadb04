//! Memory that several clients share: ranges of segments whose only copy is on the memory servers.
//!
//! Nothing is kept here. A read is answered by the server, and a write is over when the server has it; so what one client has
//! written every other reads from then on, wherever it is. Pages are replaced as a whole: a write raises a page's version by one,
//! and of two clients that replace the same version the server refuses one, who looks again. So a read or write that stays
//! within a page of 4096 bytes is atomic, and of writes to different parts of a page none is undone by another. Several pages are
//! read or written one after the other.

mod part;

use std::ops::Range;

use rackmem_types::PAGE_SIZE;
use rackmem_wire::PAGES_PER_FRAME_MAX;

use self::part::Part;
use crate::config::{Credentials, GivenSegment};
use crate::error::FarError;

/// Memory that several clients share.
pub struct SharedMemory {
    parts: Vec<Part>,
}

impl SharedMemory {
    /// Reaches all parts, which follow one another, the first one first.
    pub fn open(parts: &[GivenSegment], credentials: &Credentials) -> Result<Self, FarError> {
        let mut end = 0;
        let mut all = Vec::with_capacity(parts.len());
        for given in parts {
            let start = end;
            end += given.pages.saturating_mul(PAGE_SIZE as u64);
            all.push(Part::open(start..end, given, credentials)?);
        }
        Ok(Self { parts: all })
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.range.end)
    }

    /// Reads what is at `offset`; what was never written is zeros. How many bytes: fewer than asked for only at the end.
    pub fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<usize, FarError> {
        let mut done = 0;
        while let Some((part, pages, within)) = self.next(offset + done as u64, into.len() - done) {
            let seen = part.pages(pages)?;
            let bytes = seen.iter().flat_map(|(_, data)| data).skip(within.start).take(within.len());
            into[done..done + within.len()].iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            done += within.len();
        }
        Ok(done)
    }

    /// Writes to `offset`. How many bytes: fewer than given only at the end.
    ///
    /// After [`FarError::Unsure`] it is open whether some of it was written.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<usize, FarError> {
        let mut done = 0;
        while let Some((part, pages, within)) = self.next(offset + done as u64, bytes.len() - done) {
            part.write(pages, within.start, &bytes[done..done + within.len()])?;
            done += within.len();
        }
        Ok(done)
    }

    /// What of `len` bytes at `offset` one request can be about: the part, its pages, and the bytes of these pages.
    fn next(&mut self, offset: u64, len: usize) -> Option<(&mut Part, Range<u64>, Range<usize>)> {
        let part = self.parts.iter_mut().find(|part| part.range.contains(&offset))?;
        let page = PAGE_SIZE as u64;
        let at = offset - part.range.start;
        let first = at / page;
        let start = (at % page) as usize;
        let most = (PAGES_PER_FRAME_MAX * PAGE_SIZE - start)
            .min(usize::try_from(part.range.end - offset).unwrap_or(usize::MAX));
        let end = start + len.min(most);
        (end > start).then(|| (part, first..first + end.div_ceil(PAGE_SIZE) as u64, start..end))
    }
}
