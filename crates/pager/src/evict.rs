//! The evictor: keeps room below the limit, ahead of need, in its own thread.
//!
//! A page leaves in steps, and is safe after each:
//!
//! 1. *Plan* (locked): the policy names victims; they become `Leaving`.
//! 2. *Extract*: pages are taken out of the target atomically (`extract.rs`), and copied from there.
//! 3. *Record* (locked): zero pages become `Empty`; the others go onto the standby list, in a slot that has them already
//!    or with a store to be sent.
//! 4. *Send*, and later the answer: the standby place may be reused.
//! 5. *Drop* (locked): when room is needed, the oldest standby pages become `Far`.
//!
//! A fault may take a page back at any time after step 3.

mod resend;

use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

use rackmem_far::{Event as FarEvent, FarError, PageError, WriteRequest};
use rackmem_policy::{Admission, Eviction, PageRef};
use rackmem_types::{PAGE_SIZE, PageData, PageHash, PageVersion, Slot, is_zero};

use crate::Shared;
use crate::core::{Core, PAGE};
use crate::entry::State;
use crate::extract::{Extractor, Outcome};
use crate::journal::Happening;
use crate::space::{BATCH_PAGES, Inside};
use crate::table::SpaceId;
use crate::transfer::Transfer;

/// Stores that may be unanswered before the evictor waits: four batches keep the pipe full.
const STORES_MAX: usize = 4 * BATCH_PAGES;
/// How long the evictor rests at most: what it must notice by itself, it notices within this time.
const REST_MS: u64 = 50;
/// Pages that are recorded under one hold of the lock: some five microseconds, a fraction of a fault.
const HOLD_PAGES: usize = 16;
/// Free slots below which another extent is reserved, ahead of need.
const SLOTS_LOW: u32 = 4 * BATCH_PAGES as u32;

/// A page whose content must be sent.
struct Store {
    /// Index in the batch.
    index: usize,
    place: u16,
    slot: Slot,
    version: u64,
    checksum: u64,
}

/// Reserves more far memory: its slots, or `None` if nobody has room.
pub(crate) type Grow<'a> = Box<dyn FnMut() -> Result<Option<Range<u32>>, FarError> + Send + 'a>;

/// The evictor's own state.
pub(crate) struct Evictor<'a, P> {
    shared: &'a Shared,
    port: P,
    grow: Grow<'a>,
    extractor: Extractor,
    victims: Vec<PageRef>,
    /// The batch in order of address: page, address.
    batch: Vec<(PageRef, u64)>,
    outcomes: Vec<Outcome>,
    pages: Vec<PageData>,
    stores: Vec<Store>,
    discards: Vec<Slot>,
    /// The newest version when `discards` were taken: what is stored in these slots afterwards is newer.
    discards_up_to: PageVersion,
    near: Option<Slot>,
}

impl<'a, P: Transfer> Evictor<'a, P> {
    pub(crate) fn new(shared: &'a Shared, port: P, grow: Grow<'a>, can_move: bool) -> Self {
        Self {
            shared,
            port,
            grow,
            extractor: Extractor::new(can_move),
            victims: Vec::with_capacity(BATCH_PAGES),
            batch: Vec::with_capacity(BATCH_PAGES),
            outcomes: Vec::with_capacity(BATCH_PAGES),
            pages: vec![[0; PAGE_SIZE]; BATCH_PAGES],
            stores: Vec::with_capacity(BATCH_PAGES),
            discards: Vec::new(),
            discards_up_to: 0,
            near: None,
        }
    }

    /// Evicts until the pager stops.
    pub(crate) fn run(&mut self) {
        while !self.shared.stop.load(Relaxed) {
            if !self.step() {
                self.rest();
            }
        }
    }

    /// One round. `false`: there is nothing to do until something happens.
    pub(crate) fn step(&mut self) -> bool {
        self.answers(Duration::ZERO);
        self.reserve();
        let mut core = self.shared.lock();
        core.ceiling_lower();
        let watched = core.watched_page();
        if core.hold > 0 || (core.local() + core.headroom() <= core.limit && watched.is_none()) {
            self.discards.append(&mut core.discards);
            self.discards_up_to = core.version_newest();
            drop(core);
            self.send_discards();
            return false;
        }
        // Below this many the list would give no second chance at all.
        let keep = core.standby_target.saturating_sub(BATCH_PAGES);
        let dropped = self.drop_oldest(&mut core, keep);
        let room = core.standby.room().min(BATCH_PAGES);
        if core.local() + core.headroom() <= core.limit && watched.is_none() {
            return true;
        }
        let least = if watched.is_some() { 1 } else { BATCH_PAGES / 2 };
        let in_flight = self.port.in_flight();
        if room < least || in_flight > STORES_MAX || core.slots.free() < BATCH_PAGES as u32 {
            core.stuck = !dropped && in_flight == 0;
            return dropped;
        }
        let Some((id, inside)) = self.plan(&mut core, room, watched) else {
            // Nothing can leave: the last resort is the standby list.
            let dropped = dropped || self.drop_oldest(&mut core, 0);
            core.stuck = !dropped && core.standby.live() == 0;
            return dropped;
        };
        drop(core);
        self.outcomes.clear();
        let (batch, pages) = (&self.batch, &mut self.pages);
        let stopped = self.extractor.extract(self.shared, id, &inside, batch, pages, &mut self.outcomes);
        self.record(id, stopped);
        self.send();
        self.extractor.tidy(id, &inside);
        true
    }

    fn rest(&mut self) {
        if self.port.in_flight() > 0 {
            self.answers(Duration::from_millis(1));
            return;
        }
        let core = self.shared.lock();
        let rest = Duration::from_millis(if core.watched.is_some() { 1 } else { REST_MS });
        drop(self.shared.evict.wait_timeout(core, rest).unwrap_or_else(PoisonError::into_inner));
    }

    /// Lets the oldest standby pages go, as far as room is needed and their slots have them.
    fn drop_oldest(&mut self, core: &mut Core, keep: usize) -> bool {
        let mut dropped = false;
        let mut again = Vec::new();
        // Places of pages that left early are free again only when the tail has passed them.
        while core.local() + core.headroom() > core.limit
            && (core.standby.live() > keep || core.standby.room() < BATCH_PAGES)
        {
            let Some(page) = core.standby.pop() else { break };
            let mut entry = core.table.get(page);
            if entry.slot_valid {
                entry.state = State::Far;
                core.far += 1;
                core.table.set(page, entry);
                dropped = true;
            } else {
                again.push(page);
                break;
            }
        }
        for page in again {
            self.store_again(core, page);
        }
        dropped
    }

    /// A standby page whose slot does not have it (its store failed, or its server is lost) is sent to another.
    fn store_again(&mut self, core: &mut Core, page: PageRef) {
        let mut entry = core.table.get(page);
        let mut data = [0; PAGE_SIZE];
        core.standby.read(entry.place, &mut data);
        if let Some(slot) = entry.slot.take() {
            core.slot_release(slot);
        }
        self.discards_up_to = core.version_newest(); // before the version that a reused slot gets
        let slot = core.slots.allocate(None);
        if core.standby.room() > 0 {
            entry.place = core.standby.push(page, &data, slot.is_some());
        } else {
            // It shared its place, which others keep.
            core.standby.share(entry.place, page);
            if slot.is_some() {
                core.standby.send(entry.place);
            }
        }
        entry.slot_valid = false;
        if let Some(slot) = slot {
            let (version, hash) = (core.version(), PageHash::of(&data));
            entry.stored(slot, version, hash);
            let request = WriteRequest {
                tag: entry.place.into(),
                slot,
                version,
                checksum: hash.checksum(),
                data: &data,
            };
            self.discards.append(&mut core.discards);
            self.send_discards();
            self.port.write(&[request]);
        }
        core.table.set(page, entry);
    }

    /// Chooses a batch, all of one space.
    fn plan(&mut self, core: &mut Core, room: usize, watched: Option<PageRef>) -> Option<(SpaceId, Inside)> {
        self.victims.clear();
        if let Some(page) = watched {
            core.policy.forget(page);
            self.victims.push(page);
        } else {
            let excess = (core.local() + core.headroom()).saturating_sub(core.limit) as usize;
            // At least half a batch: the cost of a batch is mostly per batch.
            core.policy.victims(excess.max(BATCH_PAGES / 2).min(room), &mut self.victims);
        }
        self.batch.clear();
        let mut chosen = None;
        for &page in &self.victims {
            let (id, address) = core.table.place(page);
            let mut entry = core.table.get(page);
            let Some(space) = core.space(id).filter(|space| space.inside.is_some()) else { continue };
            if entry.state != State::Resident {
                continue;
            }
            // Its turn comes with another batch: of its own space, or once it is known which pages are where.
            if !space.pending.is_empty() || *chosen.get_or_insert(id) != id {
                core.policy.admit(page, Admission::Found);
                continue;
            }
            entry.state = State::Leaving;
            core.table.set(page, entry);
            self.batch.push((page, address));
        }
        let id = chosen?;
        let inside = core.space(id)?.inside.clone()?;
        inside.resident.arm();
        core.batch = Some(id);
        self.batch.sort_unstable_by_key(|&(_, address)| address);
        Some((id, inside))
    }

    /// Records what became of the batch, and whether the program could be stopped for it.
    fn record(&mut self, id: SpaceId, stopped: bool) {
        // Hashing takes longer than all the rest: it is done before the lock is taken.
        let hashes: Vec<Option<PageHash>> = self
            .outcomes
            .iter()
            .zip(&self.pages)
            .map(|(outcome, page)| (*outcome == Outcome::Left && !is_zero(page)).then(|| PageHash::of(page)))
            .collect();
        let mut core = self.shared.lock();
        self.shared.sending.store(true, Relaxed);
        self.discards_up_to = core.version_newest(); // before the versions that reused slots get
        self.stores.clear();
        for (index, hash) in hashes.into_iter().enumerate() {
            if index > 0 && index.is_multiple_of(HOLD_PAGES) {
                drop(core);
                self.shared.give_way();
                core = self.shared.lock();
            }
            let (page, address) = self.batch[index];
            match (self.outcomes[index], hash) {
                (Outcome::Left, None) => left_empty(&mut core, page),
                (Outcome::Left, Some(hash)) => self.left(&mut core, index, page, hash),
                (outcome, _) => stayed(&mut core, page, outcome),
            }
            let waiter = core.waiting.remove(&page);
            if let Some(since) = waiter {
                core.waited(since, false);
                if let Some(space) = core.space(id) {
                    space.uffd.wake(address, PAGE);
                }
            }
        }
        core.batch = None;
        // A thread that faults within a system call cannot be stopped before it has its page. So nobody waits for room then.
        core.stuck = !stopped;
        core.estate.batch_end();
        self.discards.append(&mut core.discards);
        drop(core);
        self.shared.batch_done.notify_all();
    }

    /// A page with content is out of the target: onto the standby list with it.
    fn left(&mut self, core: &mut Core, index: usize, page: PageRef, hash: PageHash) {
        let mut entry = core.table.get(page);
        core.resident -= 1;
        core.counters.evicted += 1;
        let (space, address) = core.table.place(page);
        let moves = entry.slot.is_some_and(|slot| core.must_move(slot));
        let unchanged = entry.is_stored(hash) && !moves;
        let mut slot = None;
        if unchanged {
            core.counters.unchanged += 1;
        } else {
            // A slot that others share keeps their content; this page gets a slot of its own.
            if let Some(own) = entry.slot.take() {
                if core.slots.owners(own) == 1 && !moves {
                    entry.slot = Some(own);
                } else {
                    core.slot_release(own);
                }
            }
            slot = entry.slot.or_else(|| core.slots.allocate(self.near));
            entry.slot_valid = false;
        }
        entry.place = core.standby.push(page, &self.pages[index], slot.is_some());
        entry.state = State::Standby;
        entry.waited = false;
        entry.discarded = false;
        if let Some(slot) = slot {
            self.near = Some(slot);
            let version = core.version();
            entry.stored(slot, version, hash);
            self.stores.push(Store { index, place: entry.place, slot, version, checksum: hash.checksum() });
        }
        core.table.set(page, entry);
        let what = if unchanged { Happening::EvictUnchanged } else { Happening::EvictSent };
        core.note(what, space, 0, address);
    }

    fn send(&mut self) {
        self.send_discards();
        self.send_stores();
        self.shared.sending.store(false, Release);
    }

    fn send_stores(&mut self) {
        if self.stores.is_empty() {
            return;
        }
        let requests: Vec<WriteRequest<'_>> = self
            .stores
            .iter()
            .map(|store| WriteRequest {
                tag: store.place.into(),
                slot: store.slot,
                version: store.version,
                checksum: store.checksum,
                data: &self.pages[store.index],
            })
            .collect();
        self.port.write(&requests);
    }

    /// Slots that nobody owns are given up before any of them is written anew: both go through this port, in this order.
    fn send_discards(&mut self) {
        if !self.discards.is_empty() {
            self.port.discard(&self.discards, self.discards_up_to);
            self.discards.clear();
        }
    }

    /// Takes the answers to stores.
    fn answers(&mut self, patience: Duration) {
        let shared = self.shared;
        let mut handle = |event: FarEvent<'_>| match event {
            FarEvent::Stored { tag, .. } => {
                shared.lock().standby.sent(tag as u16);
            }
            FarEvent::StoreFailed { tag, slot, error } => {
                let mut core = shared.lock();
                core.standby.sent(tag as u16);
                store_failed(&mut core, slot, error);
            }
            FarEvent::ServerLost { slots, reason } => shared.lock().slots_lost(&slots, &reason),
            FarEvent::Page { .. } | FarEvent::ReadFailed { .. } => {}
        };
        if patience.is_zero() {
            self.port.advance(Instant::now(), &mut handle);
        } else {
            self.port.wait(Some(patience), &mut handle);
        }
    }

    /// Reserves more far memory when little is left.
    fn reserve(&mut self) {
        let mut core = self.shared.lock();
        let enough = core.slots.free() >= SLOTS_LOW || core.local() + 2 * core.headroom() <= core.limit;
        if core.slots.free() >= BATCH_PAGES as u32 {
            core.far_full = false;
        }
        let enough = enough && (core.watched.is_none() || core.slots.free() >= SLOTS_LOW);
        let full = core.far_full;
        drop(core);
        if enough || (full && !self.shared.far_retry()) {
            return;
        }
        let _growing = self.shared.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = (self.grow)();
        let mut core = self.shared.lock();
        match grown {
            Ok(Some(slots)) => {
                core.slots.add_extent(slots);
                core.far_full = false;
            }
            Ok(None) => {
                if core.slots.free() < BATCH_PAGES as u32 {
                    core.slots_reclaim(SLOTS_LOW);
                }
                core.far_full = core.slots.free() < BATCH_PAGES as u32;
                if core.far_full {
                    core.warn(
                        "far memory is full: the local limit cannot be kept until a memory server has room"
                            .into(),
                    );
                }
            }
            Err(error) => {
                core.far_full = core.slots.free() < BATCH_PAGES as u32;
                core.warn(format!("no more far memory could be reserved: {error}"));
            }
        }
    }
}

/// A page of zeros left: it needs no slot and no place.
fn left_empty(core: &mut Core, page: PageRef) {
    let mut entry = core.table.get(page);
    core.resident -= 1;
    core.counters.evicted += 1;
    core.counters.zero += 1;
    let (space, address) = core.table.place(page);
    if let Some(slot) = entry.slot.take() {
        core.slot_release(slot);
    }
    entry.state = State::Empty;
    (entry.slot_valid, entry.waited) = (false, false);
    core.table.set(page, entry);
    core.note(Happening::EvictZero, space, 0, address);
}

/// A page did not leave.
fn stayed(core: &mut Core, page: PageRef, outcome: Outcome) {
    let mut entry = core.table.get(page);
    entry.waited = false;
    match outcome {
        // There was nothing: the program gave it back, and the kernel took it after we had answered a fault there. (Without
        // that excuse it stays `Resident`, and whoever asks for it is answered as `doubt` in serve.rs says.)
        Outcome::Absent if entry.discarded => {
            core.resident -= 1;
            if let Some(slot) = entry.slot.take() {
                core.slot_release(slot);
            }
            entry.slot_valid = false;
            entry.state = State::Empty;
            core.table.set(page, entry);
        }
        Outcome::Absent | Outcome::Stuck => {
            entry.state = State::Resident;
            core.table.set(page, entry);
        }
        Outcome::Stayed | Outcome::Left => {
            entry.state = State::Resident;
            core.table.set(page, entry);
            core.policy.admit(page, Admission::Found);
        }
    }
}

/// A store failed: the slot does not have the content, whoever owns it by now. (A lost server says so for all its slots.)
fn store_failed(core: &mut Core, slot: Slot, error: PageError) {
    if error == PageError::Lost {
        return;
    }
    core.slot_invalidate(slot);
    core.warn(format!("a page could not be stored: {error}; it is kept here and sent again"));
}
