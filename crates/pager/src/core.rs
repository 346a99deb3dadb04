//! The page states, and everything that changes them.
//!
//! One lock guards it all (`Shared::core`). The fault thread holds it while it handles what it has read; the evictor
//! while it plans a batch and while it records what became of it; the keeper while it registers memory. Nobody holds it
//! across a wait. What makes this right, and not just short:
//!
//! - Messages are read from a userfaultfd only under the lock, and pages are installed only under the lock. While a
//!   message about a changed mapping is unread, the kernel refuses to install or move pages (`EAGAIN`). So a page is
//!   never installed, registered or moved on the strength of a mapping that is no longer there.
//! - A batch of moves is planned under the lock. Before a message about a changed mapping is acted upon, the batch that is
//!   under way is cancelled and awaited (see `events.rs`), because from the moment the message is read the kernel would
//!   let the rest of the batch move pages of whatever lies there now.
//! - So no state but `Leaving` can change between plan and record, and no page is `Leaving` while an event is handled.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use hdrhistogram::Histogram;
use rackmem_far::SlotTable;
use rackmem_policy::{Admission, Eviction, PageRef, Prefetcher, S3Fifo};
use rackmem_types::{PAGE_SIZE, PageVersion, Slot};

use crate::entry::{Entry, State};
use crate::estate::{Estate, SpaceState};
use crate::journal::{Happening, Journal, JournalRecord};
use crate::kernel::Mapping;
use crate::space::{BATCH_PAGES, Space};
use crate::standby::Standby;
use crate::standby_target;
use crate::table::{CHUNK_BYTES, CHUNK_PAGES, PageTable, SpaceId};
use crate::watch::Watched;

pub(crate) const PAGE: u64 = PAGE_SIZE as u64;

/// Counters since the attach.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) faults: u64,
    pub(crate) far_faults: u64,
    pub(crate) stall_us: u64,
    pub(crate) fetched: u64,
    pub(crate) prefetched: u64,
    pub(crate) evicted: u64,
    pub(crate) unchanged: u64,
    pub(crate) zero: u64,
    pub(crate) reclaimed: u64,
    pub(crate) lost: u64,
}

/// 100 ns to 100 s with two digits: what people compare, in a few kilobytes.
pub(crate) fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(100, 100_000_000_000, 2).expect("the bounds are in order")
}

/// Everything that is known.
pub(crate) struct Core {
    pub(crate) table: PageTable,
    /// What a successor needs besides.
    pub(crate) estate: Estate,
    pub(crate) spaces: Vec<Option<Space>>,
    pub(crate) standby: Standby,
    pub(crate) slots: SlotTable,
    pub(crate) policy: S3Fifo,
    pub(crate) prefetcher: Prefetcher,
    pub(crate) counters: Counters,
    /// Latency of far faults in nanoseconds, in the window of now and in the one before.
    pub(crate) latency: Histogram<u32>,
    pub(crate) latency_before: Histogram<u32>,
    pub(crate) watched: Option<Watched>,
    pub(crate) journal: Option<Journal>,
    pub(crate) warnings: Vec<String>,
    /// The local limit, in pages.
    pub(crate) limit: u64,
    /// Faults wait for room above this many local pages. It is the limit, except while memory that was found at once (an
    /// attach, a lowered limit) is leaving: then it comes down with it, so that nobody waits for all of that.
    pub(crate) ceiling: u64,
    /// Pages in targets, the leaving ones included.
    pub(crate) resident: u64,
    /// Pages that are only far, the fetched ones included.
    pub(crate) far: u64,
    /// Pages lost.
    pub(crate) lost: u64,
    /// Slots that nobody owns any more; told to the servers by the evictor, whose port also reuses them.
    pub(crate) discards: Vec<Slot>,
    /// Slot ranges of lost servers.
    pub(crate) lost_slots: Vec<Range<u32>>,
    /// The space from which a batch is leaving.
    pub(crate) batch: Option<SpaceId>,
    /// The evictor itself drops pages of this space, whose program stands still: their messages mean nothing.
    pub(crate) dropping: Option<SpaceId>,
    /// What lies in retired slots is being moved to others.
    pub(crate) vacating: bool,
    /// No batch may begin (an event waits for its turn, or a detach has begun).
    pub(crate) hold: u32,
    /// Far memory is full: nothing can leave, so nobody is made to wait for room.
    pub(crate) far_full: bool,
    /// Nothing can leave at the moment (locked memory, a forked child that nobody has entered yet, a program that could not be
    /// stopped): as above.
    pub(crate) stuck: bool,
    /// Pages that the standby list should hold.
    pub(crate) standby_target: usize,
    /// Forked children that nobody polls yet.
    pub(crate) newborn: Vec<SpaceId>,
    /// Whether lost pages can be poisoned (Linux 6.6).
    pub(crate) can_poison: bool,
    /// Faults that found their page leaving: when they began.
    pub(crate) waiting: HashMap<PageRef, Instant>,
    next_version: PageVersion,
    next_badge: u64,
}

impl Core {
    pub(crate) fn new(
        limit: u64,
        standby: usize,
        journal: Option<Journal>,
        can_poison: bool,
    ) -> io::Result<Self> {
        let capacity = (standby + 4 * BATCH_PAGES).min(1 << 16);
        let memory = (PageTable::new()?, Standby::new(capacity)?, Estate::new()?);
        Ok(Self::with(memory, limit, standby, journal, can_poison))
    }

    /// With the memory that a dead pager left, or new one.
    pub(crate) fn with(
        (table, standby, estate): (PageTable, Standby, Estate),
        limit: u64,
        standby_target: usize,
        journal: Option<Journal>,
        can_poison: bool,
    ) -> Self {
        Self {
            next_version: estate.versions(),
            next_badge: estate.serials(),
            table,
            estate,
            spaces: Vec::new(),
            standby,
            slots: SlotTable::default(),
            policy: S3Fifo::new(),
            prefetcher: Prefetcher::new(),
            counters: Counters::default(),
            latency: histogram(),
            latency_before: histogram(),
            watched: None,
            journal,
            warnings: Vec::new(),
            limit,
            ceiling: limit,
            resident: 0,
            far: 0,
            lost: 0,
            discards: Vec::new(),
            lost_slots: Vec::new(),
            batch: None,
            dropping: None,
            vacating: false,
            hold: 0,
            far_full: false,
            stuck: false,
            newborn: Vec::new(),
            standby_target,
            can_poison,
            waiting: HashMap::new(),
        }
    }

    /// Pages in this machine's memory: in the targets and on the standby list.
    pub(crate) fn local(&self) -> u64 {
        self.resident + self.standby.live() as u64
    }

    /// Distance below the limit at which the evictor rests, so that faults find room without waiting.
    pub(crate) fn headroom(&self) -> u64 {
        (self.limit / 32).clamp(64, 8192).min(self.limit / 4)
    }

    /// Another local limit. The standby list goes with it: it counts as local memory, and one that was right for a large
    /// limit would leave nothing of a small one to the program.
    pub(crate) fn limit_set(&mut self, pages: u64) {
        self.limit = pages;
        self.standby_target = standby_target(pages, self.standby.capacity());
        self.ceiling_reset();
    }

    /// The limit is another, or nothing was known: faults need not wait until all that is above it has left.
    pub(crate) fn ceiling_reset(&mut self) {
        self.ceiling = (self.local() + self.headroom()).max(self.limit);
    }

    /// So many pages were found: nor until all of these have left.
    pub(crate) fn ceiling_raise(&mut self, found: u64) {
        let most = self.local() + self.headroom();
        self.ceiling = self.ceiling.max(most.min(self.ceiling + found));
    }

    /// Memory has left.
    pub(crate) fn ceiling_lower(&mut self) {
        self.ceiling = self.ceiling.min(self.local() + self.headroom()).max(self.limit);
    }

    /// Whether faults must wait for the evictor.
    pub(crate) fn is_full(&self) -> bool {
        self.local() >= self.ceiling && !self.far_full && !self.stuck && self.hold == 0
    }

    pub(crate) fn space(&self, id: SpaceId) -> Option<&Space> {
        self.spaces.get(usize::from(id))?.as_ref()
    }

    pub(crate) fn space_mut(&mut self, id: SpaceId) -> Option<&mut Space> {
        self.spaces.get_mut(usize::from(id))?.as_mut()
    }

    pub(crate) fn spaces(&self) -> impl Iterator<Item = (SpaceId, &Space)> {
        self.spaces.iter().enumerate().filter_map(|(id, space)| Some((id as SpaceId, space.as_ref()?)))
    }

    /// Takes in a space. `None` if there are as many as an entry can name.
    pub(crate) fn space_add(&mut self, space: Space) -> Option<SpaceId> {
        let id = self.spaces.iter().position(Option::is_none).unwrap_or(self.spaces.len());
        let name = SpaceId::try_from(id).ok()?;
        if id == self.spaces.len() {
            self.spaces.push(None);
        }
        // A forked child is complete when it has inherited its pages.
        let state = if space.inside.is_some() { SpaceState::Live } else { SpaceState::Making };
        if !self.estate.space_note(name, &space, state) {
            self.warn("so many processes that some would be lost with their pager".to_owned());
        }
        self.spaces[id] = Some(space);
        Some(name)
    }

    /// Forgets a space whose process or program is gone; its slots become free.
    pub(crate) fn space_close(&mut self, id: SpaceId) {
        self.clear(id, 0, u64::MAX, false);
        self.estate.space_forget(id);
        self.spaces[usize::from(id)] = None;
    }

    pub(crate) fn version(&mut self) -> PageVersion {
        self.next_version += 1;
        self.estate.version_note(self.next_version);
        self.next_version
    }

    /// The newest version handed out so far: every page that is stored has this one or a lower one.
    pub(crate) fn version_newest(&self) -> PageVersion {
        self.next_version
    }

    pub(crate) fn badge(&mut self) -> u64 {
        self.next_badge += 1;
        self.estate.serial_note(self.next_badge);
        self.next_badge
    }

    /// A page is in its target now.
    pub(crate) fn became_resident(&mut self, page: PageRef, mut entry: Entry, how: Admission) {
        match entry.state {
            State::Far | State::Fetching => self.far -= 1,
            State::Lost => self.lost -= 1,
            State::Standby => self.standby.leave(entry.place, page),
            State::Empty => {}
            State::Resident | State::Leaving => self.resident -= 1,
        }
        self.resident += 1;
        entry.state = State::Resident;
        entry.waited = false;
        self.table.set(page, entry);
        let (space, _) = self.table.place(page);
        // What cannot leave is not offered to the policy; it is once its process has been entered.
        if self.space(space).is_some_and(|space| space.inside.is_some()) {
            self.policy.admit(page, how);
        }
    }

    /// Drops what is known of the pages in a range: unmapped, or, with `discarded`, given back by the program.
    /// Gives whether somebody may wait for one of them.
    pub(crate) fn clear(&mut self, space: SpaceId, start: u64, end: u64, discarded: bool) -> bool {
        let mut waiters = false;
        for chunk in self.table.chunks_in(space, start, end) {
            let whole = start <= chunk && chunk + CHUNK_BYTES <= end;
            let (from, to) = (start.max(chunk), end.min(chunk + CHUNK_BYTES));
            let Some(first) = self.table.find(space, from) else { continue };
            for i in 0..((to - from) / PAGE) as u32 {
                let page = PageRef(first.0 + i);
                let entry = self.table.get(page);
                waiters |= matches!(entry.state, State::Fetching | State::Leaving);
                let emptied =
                    Entry { discarded: discarded && entry.state != State::Lost, ..Entry::default() };
                if entry == emptied {
                    continue;
                }
                self.release(page, entry);
                self.table.set(page, emptied);
            }
            if whole && !discarded {
                self.table.remove_chunk(space, chunk);
            }
        }
        waiters
    }

    /// Takes a page out of all books but the table.
    pub(crate) fn release(&mut self, page: PageRef, entry: Entry) {
        match entry.state {
            State::Empty => {}
            State::Resident | State::Leaving => {
                self.resident -= 1;
                self.policy.forget(page);
            }
            State::Standby => self.standby.leave(entry.place, page),
            State::Far | State::Fetching => self.far -= 1,
            State::Lost => self.lost -= 1,
        }
        if let Some(slot) = entry.slot {
            self.slot_release(slot);
        }
    }

    pub(crate) fn slot_release(&mut self, slot: Slot) {
        if self.slots.release(slot) {
            self.discards.push(slot);
        }
    }

    /// A page that is here has no slot any more.
    pub(crate) fn strip(&mut self, page: PageRef) {
        let mut entry = self.table.get(page);
        if let Some(slot) = entry.slot.take() {
            self.slot_release(slot);
            entry.slot_valid = false;
            self.table.set(page, entry);
        }
    }

    /// Takes slots from pages that are here, and have them only so that they need not be sent while they are unchanged, until
    /// `wanted` are free or there are no more.
    pub(crate) fn slots_reclaim(&mut self, wanted: u32) {
        self.for_each_page(|core, page| {
            if core.slots.free() < wanted && core.table.get(page).state == State::Resident {
                core.strip(page);
            }
        });
    }

    pub(crate) fn slot_is_lost(&self, slot: Slot) -> bool {
        self.lost_slots.iter().any(|range| range.contains(&slot.0))
    }

    /// A server is gone: pages that were only there are lost, and poisoned at once.
    pub(crate) fn slots_lost(&mut self, ranges: &[Range<u32>], reason: &str) {
        let fresh: Vec<_> = ranges.iter().filter(|range| !self.lost_slots.contains(range)).cloned().collect();
        if fresh.is_empty() {
            return;
        }
        for range in &fresh {
            self.lost_slots.push(range.clone());
        }
        let before = self.counters.lost;
        self.for_each_page(Self::slot_lost);
        for range in fresh {
            self.slots.remove_extent(range);
        }
        let lost = self.counters.lost - before;
        self.warn(format!(
            "{reason}: {lost} pages that were only there are lost; touching one gives SIGBUS, everything else goes on"
        ));
    }

    /// Poisons all lost pages. `false`: the mappings are changing just now, and some may not be.
    pub(crate) fn poison_lost(&mut self) -> bool {
        let mut all = true;
        if self.lost > 0 {
            self.for_each_page(|core, page| {
                if core.table.get(page).state == State::Lost {
                    let (id, address) = core.table.place(page);
                    let poisoned = core.space(id).map(|space| space.uffd.poison(address));
                    let error = poisoned.and_then(|progress| progress.error?.raw_os_error());
                    all &= !matches!(error, Some(libc::EAGAIN | libc::ENOMEM));
                }
            });
        }
        all
    }

    /// No page may rely on what `slot` has: a store into it failed. Looks at every page, which is slow and rare.
    pub(crate) fn slot_invalidate(&mut self, slot: Slot) {
        self.for_each_page(|core, page| {
            let mut entry = core.table.get(page);
            if entry.slot == Some(slot) {
                entry.slot_valid = false;
                core.table.set(page, entry);
            }
        });
    }

    fn for_each_page(&mut self, mut visit: impl FnMut(&mut Self, PageRef)) {
        let ids: Vec<SpaceId> = self.spaces().map(|(id, _)| id).collect();
        for id in ids {
            for chunk in self.table.chunks_in(id, 0, u64::MAX) {
                let Some(first) = self.table.find(id, chunk) else { continue };
                (0..CHUNK_PAGES).for_each(|i| visit(self, PageRef(first.0 + i)));
            }
        }
    }

    fn slot_lost(&mut self, page: PageRef) {
        let mut entry = self.table.get(page);
        if !entry.slot.is_some_and(|slot| self.slot_is_lost(slot)) {
            return;
        }
        match entry.state {
            State::Far | State::Fetching => self.lose(page, entry),
            // The content is here; it goes to another slot when its turn comes.
            _ => {
                if let Some(slot) = entry.slot.take() {
                    self.slots.release(slot);
                }
                entry.slot_valid = false;
                self.table.set(page, entry);
            }
        }
    }

    /// The content of a far page is gone. Whoever touches it gets SIGBUS.
    pub(crate) fn lose(&mut self, page: PageRef, mut entry: Entry) {
        if let Some(slot) = entry.slot.take() {
            self.slots.release(slot);
        }
        self.release(page, entry);
        self.lost += 1;
        self.counters.lost += 1;
        entry.state = State::Lost;
        self.table.set(page, entry);
        let (space, address) = self.table.place(page);
        if let Some(space) = self.space(space) {
            let poisoned = self.can_poison && space.uffd.poison(address).done == PAGE;
            if !poisoned {
                // Whoever waits faults again, and is told then, see `serve.rs`.
                space.uffd.wake(address, PAGE);
            }
        }
    }

    /// Tells the user something, once.
    pub(crate) fn warn(&mut self, sentence: String) {
        /// Enough to see what happened; a flood would hide it.
        const WARNINGS_MAX: usize = 20;
        if !self.warnings.contains(&sentence) {
            tracing::warn!("{sentence}");
            self.warnings.push(sentence);
            if self.warnings.len() > WARNINGS_MAX {
                self.warnings.remove(0);
            }
        }
    }

    /// Notes that a thread waited from `since` on.
    pub(crate) fn waited(&mut self, since: Instant, far: bool) {
        let waited = since.elapsed();
        self.counters.stall_us += waited.as_micros() as u64;
        if far {
            self.latency.saturating_record(waited.as_nanos() as u64);
        }
    }

    /// A forked child has been entered.
    pub(crate) fn inside_note(&mut self, id: SpaceId) {
        if let Some(space) = self.spaces.get(usize::from(id)).and_then(Option::as_ref) {
            self.estate.space_note(id, space, SpaceState::Live);
        }
    }

    /// The registered ranges of a space have changed.
    pub(crate) fn regions_note(&mut self, id: SpaceId) {
        if let Some(space) = self.spaces.get(usize::from(id)).and_then(Option::as_ref) {
            self.estate.regions_note(id, &space.regions);
        }
    }

    pub(crate) fn uffd(&self, space: SpaceId) -> Option<Arc<dyn Mapping>> {
        Some(Arc::clone(&self.space(space)?.uffd))
    }

    /// How many pages from `address` on can be filled with zeros at once: empty, in the same chunk and registered range, and
    /// within the limit. A chunk that is touched for the first time gets 16, then all it has: a program that touches
    /// one page here and one there is not charged for a whole chunk each.
    pub(crate) fn empty_run(&self, space: SpaceId, page: PageRef, address: u64) -> u64 {
        const FIRST_PAGES: u64 = 16;
        let Some(region) = self.space(space).and_then(|space| space.regions.containing(address)) else {
            return 1;
        };
        let in_chunk = u64::from(CHUNK_PAGES - page.0 % CHUNK_PAGES);
        let wish = if self.table.fills(page) == 0 { FIRST_PAGES } else { u64::from(CHUNK_PAGES) };
        let room = self.ceiling.saturating_sub(self.local());
        let most = in_chunk.min((region.end - address) / PAGE).min(wish).min(room).max(1);
        (1..most).find(|&i| self.table.get(PageRef(page.0 + i as u32)).state != State::Empty).unwrap_or(most)
    }

    /// Takes a happening down for the trace.
    pub(crate) fn note(&mut self, what: Happening, space: SpaceId, thread: u32, address: u64) {
        self.note_run(what, space, thread, address, 1);
    }

    /// As [`Core::note`], for `pages` pages from `address` on.
    pub(crate) fn note_run(
        &mut self,
        what: Happening,
        space: SpaceId,
        thread: u32,
        address: u64,
        pages: u64,
    ) {
        if let Some(journal) = &mut self.journal {
            journal.push(JournalRecord { at: Instant::now(), what, space, thread, address, pages });
        }
    }
}
