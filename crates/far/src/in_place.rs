//! Pages of a segment whose memory is mapped here: read and written in place, with no server involved.
//!
//! A page is written data first, then checksum, then version, so that whoever sees the version sees the rest. Ports that
//! write one page at the same time spoil it; the checksum shows it and the reader gets an error.

use std::sync::atomic::Ordering;

use rackmem_types::{PAGE_SIZE, PageData, PageVersion};
use rackmem_uapi::shared::SharedMemory;
use rackmem_wire::Mapped;

use crate::event::PageError;
use crate::server::fits;

/// Bytes of version and checksum of a page.
const META_BYTES: usize = 16;

/// Tries to read a page that changes while it is read. A write takes less than a microsecond; after so many tries it is
/// no write that is in the way.
const TRIES: usize = 64;

/// A mapped segment.
pub(crate) struct InPlace {
    memory: SharedMemory,
    pages: u64,
    data: usize,
    meta: usize,
}

impl InPlace {
    /// `None` if the layout does not fit the memory.
    pub(crate) fn new(memory: SharedMemory, layout: Mapped) -> Option<Self> {
        let end = |offset: u64, size: usize| {
            layout.pages.checked_mul(size as u64).and_then(|len| len.checked_add(offset))
        };
        let inside = |end: Option<u64>| end.is_some_and(|end| end <= memory.len() as u64);
        let fits = inside(end(layout.data_offset, PAGE_SIZE))
            && inside(end(layout.meta_offset, META_BYTES))
            && layout.data_offset.is_multiple_of(PAGE_SIZE as u64)
            && layout.meta_offset.is_multiple_of(8);
        let (data, meta) = (layout.data_offset as usize, layout.meta_offset as usize);
        fits.then_some(Self { memory, pages: layout.pages, data, meta })
    }

    /// Copies a page out; its version and checksum. The copy fits the checksum.
    pub(crate) fn read(&self, page: u64, out: &mut PageData) -> Result<(PageVersion, u64), PageError> {
        let (data, meta) = self.offsets(page).ok_or(PageError::Missing)?;
        for _ in 0..TRIES {
            let version = self.memory.word(meta).load(Ordering::Acquire);
            if version == 0 {
                return Err(PageError::Missing);
            }
            let checksum = self.memory.word(meta + 8).load(Ordering::Acquire);
            self.memory.read(data, out);
            // The words are little-endian, as they travel.
            let (version, checksum) = (u64::from_le(version), u64::from_le(checksum));
            if fits(out, checksum) && u64::from_le(self.memory.word(meta).load(Ordering::Acquire)) == version
            {
                return Ok((version, checksum));
            }
        }
        Err(PageError::Corrupt)
    }

    /// Stores a page, by the rules of the server.
    pub(crate) fn write(
        &self,
        page: u64,
        version: PageVersion,
        checksum: u64,
        bytes: &PageData,
    ) -> Result<(), PageError> {
        let (data, meta) = self.offsets(page).ok_or(PageError::Refused)?;
        let there = u64::from_le(self.memory.word(meta).load(Ordering::Acquire));
        let same = u64::from_le(self.memory.word(meta + 8).load(Ordering::Acquire)) == checksum;
        if there > version || (there == version && !same) {
            return Err(PageError::Stale);
        }
        if !fits(bytes, checksum) {
            return Err(PageError::Corrupt);
        }
        self.memory.write(data, bytes);
        self.memory.word(meta + 8).store(checksum.to_le(), Ordering::Release);
        self.memory.word(meta).store(version.to_le(), Ordering::Release);
        Ok(())
    }

    /// Forgets those of `count` pages from `first` on whose version is at most `up_to`, and gives their memory back.
    pub(crate) fn discard(&self, first: u64, count: u64, up_to: PageVersion) {
        let end = first.saturating_add(count).min(self.pages);
        let mut page = first.min(end);
        while page < end {
            let run = (page..end).take_while(|page| self.forget(*page, up_to)).count() as u64;
            if let Some((data, _)) = self.offsets(page) {
                // If the kernel refuses, the memory stays taken until the slot is used again; nothing is wrong with it.
                let _ = self.memory.punch_hole(data, run as usize * PAGE_SIZE);
            }
            page += run + 1;
        }
    }

    /// Makes a page absent, unless its version is higher than `up_to`. Its memory stays.
    fn forget(&self, page: u64, up_to: PageVersion) -> bool {
        let Some((_, meta)) = self.offsets(page) else { return false };
        let version = self.memory.word(meta);
        let goes = u64::from_le(version.load(Ordering::Acquire)) <= up_to;
        if goes {
            version.store(0, Ordering::Release);
        }
        goes
    }

    fn offsets(&self, page: u64) -> Option<(usize, usize)> {
        let index = page as usize;
        (page < self.pages).then(|| (self.data + index * PAGE_SIZE, self.meta + index * META_BYTES))
    }
}
