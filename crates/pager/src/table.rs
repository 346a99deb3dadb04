//! The page table: an entry for every page under management, in chunks of 512 pages (2 MiB of address space).
//!
//! The entries live in a memfd that the resident thread holds as well, each chunk with the space and the address that it
//! describes, so that what is where survives the pager. A chunk exists from the first time one of its pages matters until
//! the last of its pages is gone. Which chunk describes an address is kept in a map beside it, which can be rebuilt.
//!
//! Not synchronised: the core's lock guards it. It makes no system call after its creation except to give memory back.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use rackmem_policy::PageRef;
use rackmem_types::PAGE_SIZE;
use rackmem_uapi::shared::SharedMemory;

use crate::entry::{ENTRY_WORDS, Entry, State};

/// Pages in a chunk.
pub(crate) const CHUNK_PAGES: u32 = 512;
/// Bytes of address space that a chunk describes.
pub(crate) const CHUNK_BYTES: u64 = CHUNK_PAGES as u64 * PAGE_SIZE as u64;
/// Chunks at most: 512 GiB of address space with content. The memfd is sparse, so this costs address space only.
const CHUNKS_MAX: u32 = 1 << 18;

/// Name of the memfd.
pub(crate) const NAME: &str = "rackmem-pages";

/// Offset of how many chunks were ever in use.
const NEXT: usize = 0;
/// Offset of the first chunk.
const CHUNKS: usize = 4096;
const LEN: usize = CHUNKS + CHUNKS_MAX as usize * CHUNK_WORDS * 8;

const HEADER_WORDS: usize = 8;
const CHUNK_WORDS: usize = HEADER_WORDS + CHUNK_PAGES as usize * ENTRY_WORDS;
const USED: u64 = 1 << 63;

/// Index of an address space in the core.
pub(crate) type SpaceId = u16;

#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // Fibonacci hashing, folded: chunk numbers are near each other, and the map takes the low bits and the top ones.
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Entries by page.
pub(crate) struct PageTable {
    memory: SharedMemory,
    chunks: HashMap<u64, u32, BuildHasherDefault<KeyHasher>>,
    free: Vec<u32>,
    next: u32,
}

impl PageTable {
    pub(crate) fn new() -> io::Result<Self> {
        let memory = SharedMemory::create(NAME, LEN)?;
        Ok(Self { memory, chunks: HashMap::default(), free: Vec::new(), next: 0 })
    }

    /// Takes over a table that a dead pager left; of the spaces for which `lives` says no, nothing is kept.
    pub(crate) fn inherit(fd: OwnedFd, lives: impl Fn(SpaceId) -> bool) -> io::Result<Self> {
        let memory = SharedMemory::map(fd, LEN)?;
        let next = (memory.word(NEXT).load(Relaxed) as u32).min(CHUNKS_MAX);
        let mut table = Self { memory, chunks: HashMap::default(), free: Vec::new(), next };
        for chunk in 0..next {
            let word = table.memory.word(table.header_at(chunk, 0)).load(Acquire);
            let key = word & !USED;
            if word & USED != 0 && lives((key >> 48) as SpaceId) && !table.chunks.contains_key(&key) {
                table.chunks.insert(key, chunk);
            } else {
                table.header(chunk, 0, 0);
                table.free.push(chunk);
            }
        }
        Ok(table)
    }

    /// All pages that have an entry.
    pub(crate) fn pages(&self) -> Vec<PageRef> {
        let mut chunks: Vec<u32> = self.chunks.values().copied().collect();
        chunks.sort_unstable();
        chunks
            .into_iter()
            .flat_map(|chunk| (0..CHUNK_PAGES).map(move |i| PageRef(chunk * CHUNK_PAGES + i)))
            .collect()
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// The page at `address`, if its chunk exists.
    pub(crate) fn find(&self, space: SpaceId, address: u64) -> Option<PageRef> {
        let chunk = *self.chunks.get(&key(space, address))?;
        Some(PageRef(chunk * CHUNK_PAGES + offset(address)))
    }

    /// The page at `address`, in a new chunk if need be. `None` if the table is full.
    pub(crate) fn find_or_create(&mut self, space: SpaceId, address: u64) -> Option<PageRef> {
        if let Some(page) = self.find(space, address) {
            return Some(page);
        }
        let chunk = self.free.pop().or_else(|| {
            let next = self.next;
            (next < CHUNKS_MAX).then(|| self.next += 1)?;
            self.memory.word(NEXT).store(self.next.into(), Relaxed);
            Some(next)
        })?;
        let key = key(space, address);
        self.header(chunk, 1, 0);
        let empty = Entry::default().pack();
        for word in
            self.memory.words(self.at(chunk, 0), CHUNK_PAGES as usize * ENTRY_WORDS).chunks_exact(ENTRY_WORDS)
        {
            (0..ENTRY_WORDS).for_each(|i| word[i].store(empty[i], Relaxed));
        }
        self.header(chunk, 0, USED | key); // last: a chunk that is in use has entries
        self.chunks.insert(key, chunk);
        Some(PageRef(chunk * CHUNK_PAGES + offset(address)))
    }

    /// Sees to it that every page of a range has an entry, as far as the table has room.
    pub(crate) fn cover(&mut self, space: SpaceId, start: u64, end: u64) {
        for number in start / CHUNK_BYTES..end.div_ceil(CHUNK_BYTES) {
            if self.find_or_create(space, number * CHUNK_BYTES).is_none() {
                return;
            }
        }
    }

    /// Gives up the chunk that describes `address`. All its entries must be empty.
    pub(crate) fn remove_chunk(&mut self, space: SpaceId, address: u64) {
        if let Some(chunk) = self.chunks.remove(&key(space, address)) {
            debug_assert!(
                (0..CHUNK_PAGES).all(|i| self.get(PageRef(chunk * CHUNK_PAGES + i)).state == State::Empty)
            );
            self.header(chunk, 0, 0);
            self.free.push(chunk);
        }
    }

    pub(crate) fn get(&self, page: PageRef) -> Entry {
        let words = self.words(page);
        Entry::unpack([words[0].load(Relaxed), words[1].load(Relaxed), words[2].load(Relaxed)])
    }

    pub(crate) fn set(&mut self, page: PageRef, entry: Entry) {
        let packed = entry.pack();
        // The state comes last: half of it written, an entry is still what it was.
        for (word, value) in self.words(page).iter().zip(packed).rev() {
            word.store(value, Release);
        }
    }

    /// The space and address of a page.
    pub(crate) fn place(&self, page: PageRef) -> (SpaceId, u64) {
        let key = self.memory.word(self.header_at(page.0 / CHUNK_PAGES, 0)).load(Relaxed) & !USED;
        let (space, chunk) = ((key >> 48) as SpaceId, key & ((1 << 48) - 1));
        (space, chunk * CHUNK_BYTES + u64::from(page.0 % CHUNK_PAGES) * PAGE_SIZE as u64)
    }

    /// How often empty pages of the chunk of `page` were filled with zeros.
    pub(crate) fn fills(&self, page: PageRef) -> u64 {
        self.fill_count(page).load(Relaxed)
    }

    pub(crate) fn count_fill(&mut self, page: PageRef) {
        self.fill_count(page).store(self.fills(page) + 1, Relaxed);
    }

    fn fill_count(&self, page: PageRef) -> &std::sync::atomic::AtomicU64 {
        self.memory.word(self.header_at(page.0 / CHUNK_PAGES, 1))
    }

    /// Addresses of the chunks of `space` that exist and touch `start..end`, in ascending order.
    pub(crate) fn chunks_in(&self, space: SpaceId, start: u64, end: u64) -> Vec<u64> {
        let (first, last) = (start / CHUNK_BYTES, end.saturating_sub(1) / CHUNK_BYTES);
        if end <= start {
            return Vec::new();
        }
        if last - first < self.chunks.len() as u64 {
            let range = (first..=last).map(|number| number * CHUNK_BYTES);
            return range.filter(|&address| self.chunks.contains_key(&key(space, address))).collect();
        }
        let mut found: Vec<u64> = self
            .chunks
            .keys()
            .filter(|&&key| (key >> 48) as SpaceId == space)
            .map(|key| key & ((1 << 48) - 1))
            .filter(|number| (first..=last).contains(number))
            .map(|number| number * CHUNK_BYTES)
            .collect();
        found.sort_unstable();
        found
    }

    fn words(&self, page: PageRef) -> &[std::sync::atomic::AtomicU64] {
        self.memory.words(self.at(page.0 / CHUNK_PAGES, page.0 % CHUNK_PAGES), ENTRY_WORDS)
    }

    fn at(&self, chunk: u32, page: u32) -> usize {
        self.header_at(chunk, HEADER_WORDS) + page as usize * ENTRY_WORDS * 8
    }

    fn header_at(&self, chunk: u32, word: usize) -> usize {
        CHUNKS + (chunk as usize * CHUNK_WORDS + word) * 8
    }

    fn header(&self, chunk: u32, word: usize, value: u64) {
        self.memory.word(self.header_at(chunk, word)).store(value, Release);
    }
}

fn key(space: SpaceId, address: u64) -> u64 {
    // User addresses have 47 bits (57 with five-level tables, which a program must ask for), chunk numbers 26 to 36.
    (u64::from(space) << 48) | (address / CHUNK_BYTES)
}

fn offset(address: u64) -> u32 {
    (address / PAGE_SIZE as u64 % u64::from(CHUNK_PAGES)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_inherited_without_the_dead() {
        let mut table = PageTable::new().unwrap();
        let (mine, other) =
            (table.find_or_create(3, 0x7000).unwrap(), table.find_or_create(4, 0x7000).unwrap());
        let entry = Entry { state: State::Far, version: 1 << 45, ..Entry::default() };
        table.set(mine, entry);
        table.set(other, entry);
        let gone = table.find_or_create(3, 1 << 30).unwrap();
        table.remove_chunk(3, 1 << 30);
        let mut heir =
            PageTable::inherit(table.fd().try_clone_to_owned().unwrap(), |space| space == 3).unwrap();
        assert_eq!(heir.get(heir.find(3, 0x7000).unwrap()), entry);
        assert_eq!((heir.find(4, 0x7000), heir.find(3, 1 << 30)), (None, None));
        assert_eq!(heir.pages().len(), CHUNK_PAGES as usize);
        let again = heir.find_or_create(5, 0x9000).unwrap();
        assert!([other, gone].iter().any(|page| page.0 / CHUNK_PAGES == again.0 / CHUNK_PAGES), "reused");
        assert_eq!(heir.get(again), Entry::default());
    }

    #[test]
    fn chunks_come_and_go() {
        let mut table = PageTable::new().unwrap();
        let address = 0x7f12_3456_7000;
        assert_eq!(table.find(3, address), None);
        let page = table.find_or_create(3, address).unwrap();
        assert_eq!(table.place(page), (3, address));
        assert_eq!(table.get(page), Entry::default());
        let entry = Entry { state: State::Far, version: 9, ..Entry::default() };
        table.set(page, entry);
        assert_eq!(table.get(table.find(3, address + 123).unwrap()), entry);
        assert_eq!(table.find(2, address), None, "spaces are apart");
        assert_eq!(table.chunks_in(3, 0, u64::MAX), [address / CHUNK_BYTES * CHUNK_BYTES]);
        assert_eq!(table.chunks_in(3, address, address + 1), table.chunks_in(3, 0, u64::MAX));
        assert!(table.chunks_in(3, 0, address / CHUNK_BYTES * CHUNK_BYTES).is_empty());
        table.set(page, Entry::default());
        table.remove_chunk(3, address);
        assert_eq!(table.find(3, address), None);
        let again = table.find_or_create(4, 0x1000).unwrap();
        assert_eq!(
            (again.0 / CHUNK_PAGES, table.place(again)),
            (page.0 / CHUNK_PAGES, (4, 0x1000)),
            "reused"
        );
    }
}
