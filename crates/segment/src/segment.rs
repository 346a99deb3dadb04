//! One segment: its memory, and the rules by which pages enter and leave it.
//!
//! The memory is one sparse memfd: page `i` lies at `i * 4096`, and behind all pages lies one record of 16 bytes for each,
//! its version and its checksum as little-endian words. Version 0 is an absent page. A client on the same machine may map
//! the file and do everything itself, so what the records say is believed only as far as the owner may harm itself: a
//! wrong one makes a checksum error at its reader, nothing else. The file is sealed against a change of its size, since
//! touching a page behind the end of a file would kill the server.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rackmem_types::{PAGE_SIZE, PageData, PageHash, PageVersion};
use rackmem_uapi::shared::SharedMemory;
use rackmem_wire::{Mapped, PageRange, PageRecord, PageStatus, StoreStatus, U64, WriteRecord};
use rustix::fs::{MemfdFlags, SealFlags};

/// Bytes of a page's record behind the pages.
pub const META_BYTES: usize = 16;

/// Pages that a discard gives back to the kernel itself, in 0.06 ms; whoever else uses the segment waits for it. The rest is
/// for [`Segment::free`], in steps of as many.
const FREE_AT_ONCE_PAGES: u64 = 1024;

/// Rest between two steps of [`Segment::free`]. Without it, the lock would be taken again before anybody who waits for it
/// is awake.
const FREE_REST: Duration = Duration::from_micros(50);

/// The segment was taken out of the pool while a connection still had it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// A range of the pool that one owner has reserved.
#[derive(Debug)]
pub struct Segment {
    id: u64,
    name: String,
    pages: u64,
    memory: SharedMemory,
    /// Whether the segment is still in the pool; held while pages and records change.
    alive: Mutex<bool>,
    /// Pages that arrived through [`Segment::write`] and were not discarded.
    filled: AtomicU64,
    /// Whether a client got the memory itself, so that `filled` is not the whole truth.
    mapped: AtomicBool,
}

impl Segment {
    pub(crate) fn new(id: u64, name: &str, pages: u64) -> io::Result<Self> {
        let pages_usize = usize::try_from(pages).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let len = pages_usize
            .checked_mul(PAGE_SIZE + META_BYTES)
            .and_then(|len| len.checked_next_multiple_of(PAGE_SIZE))
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let fd = rustix::fs::memfd_create(
            format!("rackmem-segment-{id}"),
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        rustix::fs::ftruncate(&fd, len as u64)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self {
            id,
            name: name.to_owned(),
            pages,
            memory: SharedMemory::map(fd, len)?,
            alive: Mutex::new(true),
            filled: AtomicU64::new(0),
            mapped: AtomicBool::new(false),
        })
    }

    /// Its id, never used twice in one run of the server.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Its memory, for sending pages straight from it. A page may change while it is read; its checksum tells.
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// Pages with content. Once a client has mapped the segment: what the kernel has given out for it.
    pub fn filled(&self) -> u64 {
        if self.mapped.load(Ordering::Relaxed) {
            let blocks = rustix::fs::fstat(self.memory.as_fd()).map_or(0, |stat| stat.st_blocks);
            // The kernel counts blocks of 512 bytes.
            return (blocks as u64 * 512 / PAGE_SIZE as u64).min(self.pages);
        }
        self.filled.load(Ordering::Relaxed)
    }

    /// Where things lie in the memory, and its descriptor, for a client that maps it.
    pub fn map(&self) -> (Mapped, BorrowedFd<'_>) {
        // Whoever frees pages looks at it under the lock.
        let _alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        self.mapped.store(true, Ordering::Relaxed);
        (self.layout(), self.memory.as_fd())
    }

    /// Where things lie in the memory.
    pub fn layout(&self) -> Mapped {
        Mapped {
            pages: self.pages,
            data_offset: 0,
            meta_offset: self.pages * PAGE_SIZE as u64,
            len: self.memory.len() as u64,
        }
    }

    /// Appends one record for each of `pages` to `records`. The caller sends the data of those that are ok.
    pub fn read(&self, pages: &[U64], records: &mut Vec<PageRecord>) -> Result<(), Gone> {
        let _alive = self.lock()?;
        records.extend(pages.iter().map(|page| {
            let page = page.get();
            if page >= self.pages {
                return PageRecord::absent(page, PageStatus::OutOfRange);
            }
            match self.meta(page).load() {
                (0, _) => PageRecord::absent(page, PageStatus::Missing),
                (version, checksum) => PageRecord::ok(page, version, checksum),
            }
        }));
        Ok(())
    }

    /// Stores pages and appends what became of each to `statuses` (as [`StoreStatus`] numbers). A page is stored if its
    /// data matches its checksum and its version is higher than what is there, or all the same as what is there: so a
    /// client may send again what it does not know to have arrived.
    pub fn write(
        &self,
        records: &[WriteRecord],
        data: &[PageData],
        statuses: &mut Vec<u8>,
    ) -> Result<(), Gone> {
        let first = statuses.len();
        statuses.extend(records.iter().zip(data).map(|(record, data)| self.examine(record, data) as u8));
        let _alive = self.lock()?;
        for ((record, data), status) in records.iter().zip(data).zip(&mut statuses[first..]) {
            if *status == StoreStatus::Ok as u8 {
                *status = self.store(record, data) as u8;
            }
        }
        Ok(())
    }

    /// What can be said about a page without a look at what is there; done before the lock is taken, hashing takes longest.
    fn examine(&self, record: &WriteRecord, data: &PageData) -> StoreStatus {
        if record.page.get() >= self.pages {
            StoreStatus::OutOfRange
        } else if record.version.get() == 0 {
            StoreStatus::Stale
        } else if PageHash::of(data).checksum() != record.checksum.get() {
            StoreStatus::Corrupt
        } else {
            StoreStatus::Ok
        }
    }

    /// Stores one examined page, if its version allows it. The lock is held.
    fn store(&self, record: &WriteRecord, data: &PageData) -> StoreStatus {
        let page = record.page.get();
        let new = (record.version.get(), record.checksum.get());
        let meta = self.meta(page);
        let old = meta.load();
        if new == old {
            return StoreStatus::Ok;
        }
        if new.0 <= old.0 {
            return StoreStatus::Stale;
        }
        self.memory.write(page as usize * PAGE_SIZE, data);
        meta.store(new);
        if old.0 == 0 {
            self.filled.fetch_add(1, Ordering::Relaxed);
        }
        StoreStatus::Ok
    }

    /// Forgets the pages whose version is at most `up_to` and gives their memory back. What lies outside the segment is
    /// ignored. Returns how many there were. Where they are many, the caller has [`Segment::free`] do the rest, of what is
    /// appended to `rest`.
    pub fn discard(
        &self,
        ranges: &[PageRange],
        up_to: PageVersion,
        rest: &mut Vec<Range<u64>>,
    ) -> Result<u64, Gone> {
        let _alive = self.lock()?;
        // Who has mapped the segment may write a page at any later time, without a lock.
        let mut at_once = if self.mapped.load(Ordering::Relaxed) { u64::MAX } else { FREE_AT_ONCE_PAGES };
        let mut discarded = 0;
        for range in ranges {
            let end = range.first.get().saturating_add(range.count.get()).min(self.pages);
            let mut page = range.first.get().min(end);
            while page < end {
                let goes = |page: &u64| (1..=up_to).contains(&self.meta(*page).load().0);
                let run = (page..end).take_while(goes).count() as u64;
                // The record goes first: a reader finds a page absent rather than empty.
                (page..page + run).for_each(|page| self.meta(page).store((0, 0)));
                if run > at_once {
                    rest.push(page..page + run);
                } else if run > 0 {
                    at_once -= run;
                    self.give_back(page, run);
                }
                discarded += run;
                page += run + 1;
            }
        }
        self.filled
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |filled| {
                Some(filled.saturating_sub(discarded))
            })
            .ok();
        Ok(discarded)
    }

    /// Gives back the memory of what a discard left over, except for pages that were written since. Takes its time, with
    /// pauses for others. Once a client has mapped the segment nothing is done: its memory goes when the pages are used
    /// again, or with the segment.
    pub fn free(&self, pages: Range<u64>) {
        let mut first = pages.start;
        while first < pages.end {
            let end = first.saturating_add(FREE_AT_ONCE_PAGES).min(pages.end).min(self.pages);
            let Ok(alive) = self.lock() else { return };
            if self.mapped.load(Ordering::Relaxed) {
                return;
            }
            let mut page = first;
            while page < end {
                let run = (page..end).take_while(|page| self.meta(*page).load().0 == 0).count() as u64;
                if run > 0 {
                    self.give_back(page, run);
                }
                page += run + 1;
            }
            drop(alive);
            thread::sleep(FREE_REST);
            first = end;
        }
    }

    /// Gives back the memory of absent pages. The lock is held.
    fn give_back(&self, first: u64, count: u64) {
        // Memory that the kernel does not take back stays in use, nothing worse: nobody reads an absent page.
        let _ = self.memory.punch_hole(first as usize * PAGE_SIZE, count as usize * PAGE_SIZE);
    }

    /// Ends the use of a segment that was taken out of the pool: whoever still has it open gets [`Gone`].
    pub fn close(&self) {
        *self.alive.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Closes the segment and gives all its memory back.
    pub fn clear(&self) {
        self.close();
        // As in `give_back`; the memory goes with the last reference at the latest.
        let _ = self.memory.punch_hole(0, self.memory.len());
    }

    fn lock(&self) -> Result<MutexGuard<'_, bool>, Gone> {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        if *alive { Ok(alive) } else { Err(Gone) }
    }

    fn meta(&self, page: u64) -> Meta<'_> {
        let offset = self.pages as usize * PAGE_SIZE + page as usize * META_BYTES;
        Meta(self.memory.words(offset, 2))
    }
}

/// A page's record: version and checksum.
struct Meta<'a>(&'a [AtomicU64]);

impl Meta<'_> {
    fn load(&self) -> (u64, u64) {
        let version = u64::from_le(self.0[0].load(Ordering::Acquire));
        (version, u64::from_le(self.0[1].load(Ordering::Relaxed)))
    }

    fn store(&self, (version, checksum): (u64, u64)) {
        self.0[1].store(checksum.to_le(), Ordering::Relaxed);
        self.0[0].store(version.to_le(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(pages: u64) -> Segment {
        Segment::new(1, "test", pages).unwrap()
    }

    fn put(segment: &Segment, page: u64, version: u64, byte: u8) -> StoreStatus {
        let data = [byte; PAGE_SIZE];
        let record = WriteRecord::new(page, version, PageHash::of(&data).checksum());
        let mut statuses = Vec::new();
        segment.write(&[record], &[data], &mut statuses).unwrap();
        StoreStatus::from_wire(statuses[0]).unwrap()
    }

    fn get(segment: &Segment, page: u64) -> (PageRecord, PageData) {
        let mut records = Vec::new();
        segment.read(&[page.into()], &mut records).unwrap();
        let mut data = [0; PAGE_SIZE];
        if records[0].is_ok() {
            segment.memory().read(page as usize * PAGE_SIZE, &mut data);
            assert_eq!(PageHash::of(&data).checksum(), records[0].checksum.get());
        }
        (records[0], data)
    }

    #[test]
    fn versions_only_grow() {
        let segment = segment(8);
        assert_eq!(put(&segment, 3, 0, 1), StoreStatus::Stale, "version 0 means absent");
        assert_eq!(put(&segment, 3, 5, 1), StoreStatus::Ok);
        assert_eq!(put(&segment, 3, 5, 1), StoreStatus::Ok, "sent again");
        assert_eq!(put(&segment, 3, 5, 2), StoreStatus::Stale, "another page under the same version");
        assert_eq!(put(&segment, 3, 4, 2), StoreStatus::Stale);
        assert_eq!(get(&segment, 3).1, [1; PAGE_SIZE]);
        assert_eq!(put(&segment, 3, 6, 2), StoreStatus::Ok);
        assert_eq!(get(&segment, 3).1, [2; PAGE_SIZE]);
        assert_eq!(segment.filled(), 1);
    }

    #[test]
    fn damaged_and_misplaced_pages_are_refused() {
        let segment = segment(8);
        let mut statuses = Vec::new();
        let good = PageHash::of(&[1; PAGE_SIZE]).checksum();
        let records =
            [WriteRecord::new(0, 1, good + 1), WriteRecord::new(8, 1, good), WriteRecord::new(1, 1, good)];
        segment.write(&records, &[[1; PAGE_SIZE]; 3], &mut statuses).unwrap();
        assert_eq!(
            statuses,
            [StoreStatus::Corrupt, StoreStatus::OutOfRange, StoreStatus::Ok].map(|s| s as u8)
        );
        assert_eq!(get(&segment, 0).0.status(), Some(PageStatus::Missing));
        assert_eq!(get(&segment, u64::MAX).0.status(), Some(PageStatus::OutOfRange));
    }

    #[test]
    fn memory_is_taken_as_pages_arrive_and_given_back() {
        let segment = segment(1 << 20);
        let used = || rustix::fs::fstat(segment.memory().as_fd()).unwrap().st_blocks * 512 / PAGE_SIZE as i64;
        assert_eq!(used(), 0, "four gigabytes reserved, none used");
        for page in 0..100 {
            put(&segment, page * 2, 1, 7);
        }
        assert!((100..=102).contains(&used()), "{} pages", used());
        let ranges =
            [PageRange::new(0, 100), PageRange::new(190, u64::MAX), PageRange::new(u64::MAX, u64::MAX)];
        assert_eq!(segment.discard(&ranges, 1, &mut Vec::new()).unwrap(), 50 + 5);
        assert_eq!(segment.filled(), 45);
        assert_eq!(get(&segment, 0).0.status(), Some(PageStatus::Missing));
        assert_eq!(put(&segment, 0, 1, 8), StoreStatus::Ok, "a discarded page starts anew");
        segment.clear();
        assert_eq!(used(), 0);
        assert_eq!(segment.read(&[0.into()], &mut Vec::new()), Err(Gone));
    }

    #[test]
    fn a_discard_leaves_pages_alone_that_are_newer_than_it() {
        let segment = segment(8);
        for (page, version) in [(0, 3), (1, 4), (2, 5), (4, 4)] {
            put(&segment, page, version, page as u8 + 1);
        }
        let all = [PageRange::new(0, 8)];
        assert_eq!(segment.discard(&all, 0, &mut Vec::new()).unwrap(), 0);
        assert_eq!(segment.discard(&all, 4, &mut Vec::new()).unwrap(), 3);
        let left: Vec<u64> = (0..8).filter(|page| get(&segment, *page).0.is_ok()).collect();
        assert_eq!((left, get(&segment, 2).1, segment.filled()), (vec![2], [3; PAGE_SIZE], 1));
        assert_eq!(segment.discard(&all, u64::MAX, &mut Vec::new()).unwrap(), 1);
    }

    #[test]
    fn what_a_large_discard_left_over_is_freed_unless_it_is_in_use_again() {
        const PAGES: u64 = 3 * FREE_AT_ONCE_PAGES;
        let used =
            |segment: &Segment| rustix::fs::fstat(segment.memory().as_fd()).unwrap().st_blocks * 512 / 4096;
        for is_mapped in [false, true] {
            let segment = segment(PAGES);
            (0..PAGES).for_each(|page| assert_eq!(put(&segment, page, 1, 1), StoreStatus::Ok));
            let records_only = used(&segment) - PAGES as i64;
            if is_mapped {
                segment.map();
            }
            let mut rest = Vec::new();
            let ranges = [PageRange::new(0, 10), PageRange::new(10, PAGES)];
            assert_eq!(segment.discard(&ranges, 1, &mut rest).unwrap(), PAGES);
            if is_mapped {
                assert_eq!((used(&segment), rest), (records_only, vec![]), "all at once");
                continue;
            }
            assert_eq!((rest.len(), &rest[0]), (1, &(10..PAGES)));
            assert_eq!(used(&segment), records_only + PAGES as i64 - 10);
            assert_eq!(get(&segment, 2000).0.status(), Some(PageStatus::Missing), "absent, freed or not");
            assert_eq!(put(&segment, 2000, 2, 2), StoreStatus::Ok);
            segment.free(rest.remove(0));
            assert_eq!((used(&segment), segment.filled()), (records_only + 1, 1));
            assert_eq!(get(&segment, 2000).1, [2; PAGE_SIZE]);
            // What is mapped later on is no longer touched.
            assert_eq!(put(&segment, 0, 3, 3), StoreStatus::Ok);
            segment.map();
            segment.memory().write(PAGE_SIZE, &[4; PAGE_SIZE]);
            segment.free(0..PAGES);
            assert_eq!(used(&segment), records_only + 3);
        }
    }

    #[test]
    fn a_client_cannot_cut_the_file_under_the_server() {
        let segment = segment(8);
        let (layout, fd) = segment.map();
        assert_eq!((layout.meta_offset, layout.len), (8 * 4096, 9 * 4096));
        assert!(rustix::fs::ftruncate(fd, 0).is_err());
    }

    #[test]
    fn what_a_client_does_in_its_mapping_counts() {
        let segment = segment(8);
        let (layout, fd) = segment.map();
        let view = SharedMemory::map(fd.try_clone_to_owned().unwrap(), layout.len as usize).unwrap();
        let data = [9; PAGE_SIZE];
        view.write(5 * PAGE_SIZE, &data);
        let meta = layout.meta_offset as usize + 5 * META_BYTES;
        view.word(meta + 8).store(PageHash::of(&data).checksum().to_le(), Ordering::Relaxed);
        view.word(meta).store(1u64.to_le(), Ordering::Release);
        assert_eq!(get(&segment, 5).1, data);
        assert_eq!(segment.filled(), 2, "the page, and the page of the records");
    }
}
