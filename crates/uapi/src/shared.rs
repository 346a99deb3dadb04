//! Memory that several processes map: a memfd and this process's mapping of it.
//!
//! Another process may write at any time, so no plain reference into the mapping is ever given out: bytes are copied in
//! and out, and words that coordinate are atomics.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// A shared mapping of a whole memfd (or file), unmapped when dropped.
#[derive(Debug)]
pub struct SharedMemory {
    fd: OwnedFd,
    address: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping is plain memory without thread affinity; all access goes through copies and atomics.
unsafe impl Send for SharedMemory {}
// SAFETY: as for `Send`; shared access copies bytes or uses atomics, it never forms a `&mut` into the mapping.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// A new memfd of `len` bytes, all zero and without any page yet. `name` shows in `/proc/PID/maps`.
    pub fn create(name: &str, len: usize) -> io::Result<Self> {
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, len as u64)?;
        Self::map(fd, len)
    }

    /// Maps `len` bytes of `fd`, which must be at least that long: touching pages behind a file's end is SIGBUS.
    pub fn map(fd: OwnedFd, len: usize) -> io::Result<Self> {
        if (rustix::fs::fstat(&fd)?.st_size as u64) < len as u64 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the shared file is shorter than its mapping",
            ));
        }
        // SAFETY: a fresh mapping at an address that the kernel chooses aliases no Rust object.
        let address = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &fd,
                0,
            )
        }?;
        let address = NonNull::new(address).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { fd, address, len })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the mapping has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address of byte `offset` in this process, for system calls that take addresses (`writev`, `UFFDIO_COPY`).
    ///
    /// Panics if the offset lies outside.
    pub fn address(&self, offset: usize) -> u64 {
        self.at(offset, 0) as u64
    }

    /// Copies `out.len()` bytes from `offset` on.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        let source = self.at(offset, out.len());
        // SAFETY: `at` checked that the source range lies in the mapping; `out` is ours alone and cannot overlap it.
        unsafe { ptr::copy_nonoverlapping(source, out.as_mut_ptr(), out.len()) }
    }

    /// Copies `bytes` to `offset`.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let target = self.at(offset, bytes.len());
        // SAFETY: `at` checked that the target range lies in the mapping; no Rust reference into the mapping exists.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) }
    }

    /// The 64-bit word at `offset`, which must be a multiple of 8.
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8), "unaligned word at {offset}");
        let word = self.at(offset, 8).cast::<AtomicU64>();
        // SAFETY: in the mapping, aligned, alive as long as `self`, and atomics may be written by others at any time.
        unsafe { &*word }
    }

    /// The 64-bit words from `offset` on, `count` of them.
    pub fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        assert!(offset.is_multiple_of(8), "unaligned words at {offset}");
        let words = self.at(offset, count * 8).cast::<AtomicU64>();
        // SAFETY: as for `word`, for the whole range that `at` checked.
        unsafe { std::slice::from_raw_parts(words, count) }
    }

    /// The 32-bit word at `offset`, which must be a multiple of 4; the shape that futexes want.
    pub fn half_word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4), "unaligned half word at {offset}");
        let word = self.at(offset, 4).cast::<AtomicU32>();
        // SAFETY: as for `word`.
        unsafe { &*word }
    }

    /// Gives the memory of a range back to the kernel; it reads as zeros afterwards.
    pub fn punch_hole(&self, offset: usize, len: usize) -> io::Result<()> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.fd, mode, offset as u64, len as u64)?)
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "{offset}+{len} lies outside {}",
            self.len
        );
        // SAFETY: the assertion keeps the pointer inside the mapping, or one past its end for an empty range.
        unsafe { self.address.as_ptr().cast::<u8>().add(offset) }
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map` and nobody can hold a reference into it any longer.
        let _ = unsafe { rustix::mm::munmap(self.address.as_ptr(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn two_mappings_see_the_same_bytes() {
        let one = SharedMemory::create("test", 8192).unwrap();
        let two = SharedMemory::map(one.as_fd().try_clone_to_owned().unwrap(), 8192).unwrap();
        one.write(4090, b"rackmem!");
        let mut bytes = [0; 8];
        two.read(4090, &mut bytes);
        assert_eq!(&bytes, b"rackmem!");
        one.word(16).store(7, Ordering::Relaxed);
        assert_eq!(two.words(8, 2)[1].load(Ordering::Relaxed), 7);
        one.punch_hole(0, 8192).unwrap();
        assert_eq!(two.word(16).load(Ordering::Relaxed), 0);
    }

    #[test]
    fn refuses_a_mapping_longer_than_its_file() {
        let memory = SharedMemory::create("test", 4096).unwrap();
        assert!(SharedMemory::map(memory.as_fd().try_clone_to_owned().unwrap(), 8192).is_err());
    }
}
