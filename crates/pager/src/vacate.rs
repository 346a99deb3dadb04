//! Moves what lies in some extents of far memory to others while the target runs: what is far is fetched, as room comes, and
//! leaves again to where it may be; what is here only forgets that it has a slot there.

use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

use rackmem_policy::PageRef;

use crate::Shared;
use crate::core::{Core, PAGE};
use crate::entry::State;
use crate::late;
use crate::serve::{Server, take_back};
use crate::sync::sleep;
use crate::table::{CHUNK_PAGES, SpaceId};
use crate::transfer::Transfer;

/// How often it is looked whether all has been moved.
const LOOK: Duration = Duration::from_millis(2);
/// Looks without progress after which it is given up: ten seconds.
const STALLED_LOOKS: u32 = 5000;
/// The same where no server has room for what would have to leave: one second, in which a server was asked again.
const FULL_LOOKS: u32 = 500;
/// Chunks that the fault thread looks through at a time: it holds the lock, and 16 are 8,192 entries.
const CHUNKS_MAX: usize = 16;

impl Core {
    /// Whether what lies in this slot is being moved to another.
    pub(crate) fn must_move(&self, slot: rackmem_types::Slot) -> bool {
        self.vacating && self.slots.is_retired(slot)
    }
}

/// Empties these extents; when it returns none of their slots is in use, and none will be. The error is a sentence, and
/// then they are as before.
pub(crate) fn vacate(shared: &Shared, extents: &[Range<u32>]) -> Result<(), String> {
    {
        let mut core = shared.lock();
        core.vacating = true;
        extents.iter().for_each(|slots| core.slots.retire(slots));
    }
    let outcome = emptied(shared, extents);
    let mut core = shared.lock();
    core.vacating = false;
    for slots in extents {
        match outcome {
            Ok(()) => core.slots.remove_extent(slots.clone()),
            Err(_) => core.slots.restore(slots),
        }
    }
    outcome
}

fn emptied(shared: &Shared, extents: &[Range<u32>]) -> Result<(), String> {
    let (mut before, mut looks) = (u32::MAX, 0);
    loop {
        shared.wake_server();
        shared.evict.notify_one();
        sleep(LOOK);
        let core = shared.lock();
        let left = extents.iter().map(|slots| core.slots.used_in(slots)).sum();
        if left == 0 && !shared.sending.load(Acquire) {
            return Ok(());
        }
        if shared.stop.load(Relaxed) || shared.detaching.load(Relaxed) {
            return Err("the target is ending, or is being let go".to_owned());
        }
        looks = if left < before { 0 } else { looks + 1 };
        before = before.min(left);
        if looks >= FULL_LOOKS && core.far_full {
            return Err(format!("no memory server has room for the {left} pages that lie there"));
        }
        if looks >= STALLED_LOOKS {
            return Err(format!("{left} pages that lie there cannot be moved at the moment"));
        }
    }
}

impl<P: Transfer> Server<'_, P> {
    /// Looks through the next chunks for what has to be moved.
    pub(crate) fn move_away(&mut self, core: &mut Core) {
        for _ in 0..CHUNKS_MAX {
            let Some((id, chunk)) = self.sweep.pop() else { break };
            if !self.move_chunk_away(core, id, chunk) {
                self.sweep.push((id, chunk));
                return;
            }
        }
        if self.sweep.is_empty() {
            let ids: Vec<SpaceId> = core.spaces().map(|(id, _)| id).collect();
            for id in ids {
                self.sweep
                    .extend(core.table.chunks_in(id, 0, u64::MAX).into_iter().rev().map(|chunk| (id, chunk)));
            }
        }
    }

    /// `false`: there was no room for all of it.
    fn move_chunk_away(&mut self, core: &mut Core, id: SpaceId, chunk: u64) -> bool {
        if core.space(id).is_some() && !late::settle(core, id) {
            return false; // which pages these are, is not known yet
        }
        let (Some(first), Some(uffd)) = (core.table.find(id, chunk), core.uffd(id)) else { return true };
        // Faults come first: they find some room beside what is fetched here.
        let most = core.limit.saturating_sub(core.headroom() / 4);
        let mut room = most.saturating_sub(core.local() + self.port.in_flight() as u64);
        let mut all = true;
        self.requests.clear();
        for i in 0..CHUNK_PAGES {
            let page = PageRef(first.0 + i);
            let entry = core.table.get(page);
            if !entry.slot.is_some_and(|slot| core.must_move(slot)) {
                continue;
            }
            match entry.state {
                State::Resident | State::Empty => core.strip(page),
                State::Standby => {
                    if take_back(core, &*uffd, page, chunk + u64::from(i) * PAGE) {
                        core.strip(page);
                    }
                }
                State::Far if room == 0 => all = false,
                State::Far => match self.request(core, page, None) {
                    Some(request) => {
                        self.requests.push(request);
                        room -= 1;
                    }
                    None => all = false,
                },
                // It is on its way to somewhere, and looked at again.
                State::Fetching | State::Leaving | State::Lost => {}
            }
        }
        if !self.requests.is_empty() {
            core.counters.prefetched += self.requests.len() as u64;
            self.port.read(&self.requests);
        }
        all
    }
}
