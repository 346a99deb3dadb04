//! Private anonymous memory of this process whose pages can be dropped: what the benchmarks touch, and what the floor
//! of the engine's figures pages in.
//!
//! As in [`crate::shared`], no plain reference into the mapping is ever given out: dropping pages and a pager that fills
//! them change the bytes behind Rust's back, so all access is by atomics.

use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// A fresh private anonymous mapping, page aligned, without any page yet; unmapped when dropped.
#[derive(Debug)]
pub struct AnonymousMemory {
    address: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping is plain memory without thread affinity; all access goes through atomics.
unsafe impl Send for AnonymousMemory {}
// SAFETY: as for `Send`; shared access never forms a `&mut` into the mapping.
unsafe impl Sync for AnonymousMemory {}

impl AnonymousMemory {
    /// Maps `len` bytes.
    pub fn map(len: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address that the kernel chooses aliases no Rust object.
        let address =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, protection, MapFlags::PRIVATE) }?;
        let address = NonNull::new(address).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { address, len })
    }

    /// Address of the first byte.
    pub fn address(&self) -> u64 {
        self.address.as_ptr() as u64
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the mapping has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The 64-bit words from `offset` (a multiple of 8) on, `count` of them. Panics if they lie outside.
    pub fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        assert!(offset.is_multiple_of(8), "unaligned words at {offset}");
        let end = count.checked_mul(8).and_then(|bytes| bytes.checked_add(offset));
        assert!(end.is_some_and(|end| end <= self.len), "{count} words at {offset} lie outside {}", self.len);
        // SAFETY: the assertion keeps the pointer inside the mapping.
        let first = unsafe { self.address.as_ptr().cast::<AtomicU64>().byte_add(offset) };
        // SAFETY: in the mapping, aligned, alive as long as `self`, and atomics may change at any time.
        unsafe { std::slice::from_raw_parts(first, count) }
    }

    /// Drops the pages of a page-aligned range (`MADV_DONTNEED`): the next access faults.
    pub fn drop_pages(&self, offset: usize, len: usize) -> io::Result<()> {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "{offset}+{len} lies outside");
        // SAFETY: the assertion keeps the pointer inside the mapping.
        let first = unsafe { self.address.as_ptr().byte_add(offset) };
        // SAFETY: the range is ours, and its words are only seen as atomics, which may change at any time.
        Ok(unsafe { rustix::mm::madvise(first, len, Advice::LinuxDontNeed) }?)
    }
}

impl Drop for AnonymousMemory {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map` and nobody can hold a reference into it any longer.
        let _ = unsafe { rustix::mm::munmap(self.address.as_ptr(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn dropped_pages_read_as_zeros() {
        let memory = AnonymousMemory::map(8192).unwrap();
        memory.words(4096, 2)[1].store(7, Relaxed);
        memory.words(0, 1)[0].store(9, Relaxed);
        memory.drop_pages(4096, 4096).unwrap();
        assert_eq!(memory.words(4096, 2)[1].load(Relaxed), 0);
        assert_eq!(memory.words(0, 1)[0].load(Relaxed), 9);
    }

    #[test]
    #[should_panic(expected = "lie outside")]
    fn words_beyond_the_end_are_refused() {
        let memory = AnonymousMemory::map(4096).unwrap();
        let _ = memory.words(4088, 2);
    }
}
