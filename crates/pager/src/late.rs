//! Messages that come late.
//!
//! A thread that changes a mapping first makes the change and then posts its message. Two threads' messages can therefore
//! arrive in another order than their changes took place: a mapping moves to where another one was, its message comes, and
//! only then the message that the other one is gone. Taken at its word the second message would drop the pages that have
//! just arrived. (The kernel itself posts the unmap of an `mremap`'s old place after the message of the move, and another
//! thread may have moved something there in between.)
//!
//! What tells is whether the kernel is *quiet*: while any message is due, it refuses to install pages (`EAGAIN`). So a range
//! that pages have arrived in is remembered until the next quiet moment. An unmap that touches it meanwhile is put off, and
//! then each page is asked for: is a registered mapping there now? It is the one that arrived, unless it has gone again, and
//! nothing new is registered before the quiet moment. A move onto pages that have not gone yet is put off as well,
//! until the message that takes them away has come.

use std::ops::Range;

use crate::core::{Core, PAGE};
use crate::entry::State;
use crate::events;
use crate::ranges::RangeSet;
use crate::table::SpaceId;

/// A move: from, to, bytes.
type Remap = (u64, u64, u64);

/// What is not settled in one space.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unsettled {
    /// Where pages have arrived since the last quiet moment.
    arrivals: RangeSet,
    /// Unmaps of such ranges.
    unmaps: Vec<Range<u64>>,
    /// Moves onto pages that have not gone yet.
    remaps: Vec<Remap>,
}

impl Unsettled {
    /// Whether nothing is open, so that mappings may be registered.
    pub(crate) fn is_empty(&self) -> bool {
        self.arrivals.is_empty() && self.remaps.is_empty()
    }

    /// Notes that pages have moved. What was put off for the old place has nothing to decide there any more.
    pub(crate) fn moved(&mut self, from: Range<u64>, to: Range<u64>) {
        self.arrivals.remove(from);
        self.arrivals.insert(to);
    }

    /// Splits an unmapped range: what can be dropped at once is given back, the rest is put off. The old place of a move
    /// that was put off is neither: the move will take what is there.
    pub(crate) fn unmap(&mut self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut spared = self.arrivals.clone();
        self.unmaps.extend(self.arrivals.parts(range.clone()));
        for &(from, _, len) in &self.remaps {
            spared.insert(from..from + len);
        }
        spared.gaps(range)
    }

    /// Puts a move off.
    pub(crate) fn put_off(&mut self, remap: Remap) {
        self.remaps.push(remap);
    }
}

/// Takes up what was put off. `false`: something is still open, and no page may be installed in this space.
pub(crate) fn settle(core: &mut Core, id: SpaceId) -> bool {
    if core.space(id).is_none_or(|space| space.unsettled.is_empty()) {
        return true;
    }
    if core.batch == Some(id) {
        return false; // its pages belong to the evictor until it has recorded them
    }
    let Some(space) = core.space_mut(id) else { return true };
    let mut is_quiet = space.ask() != Some(libc::EAGAIN);
    let remaps = std::mem::take(&mut space.unsettled.remaps);
    if is_quiet {
        let unmaps = std::mem::take(&mut space.unsettled.unmaps);
        for range in unmaps {
            is_quiet = is_quiet && drop_unmapped(core, id, range.clone());
            // A change that began meanwhile leaves this undecided, and what was decided is decided the same way again.
            if !is_quiet && let Some(space) = core.space_mut(id) {
                space.unsettled.unmaps.push(range);
            }
        }
    }
    // One pass over the moves: what still finds pages in its way waits for the next message, or for quiet.
    for remap in remaps {
        if is_quiet || !is_occupied(core, id, remap) {
            events::remap_now(core, id, remap);
        } else if let Some(space) = core.space_mut(id) {
            space.unsettled.put_off(remap);
        }
    }
    if is_quiet && let Some(space) = core.space_mut(id) {
        space.unsettled = Unsettled::default();
    }
    is_quiet
}

/// Whether a move would meet a mapping that has not gone yet.
pub(crate) fn is_occupied(core: &Core, id: SpaceId, (_, to, len): Remap) -> bool {
    core.space(id).is_some_and(|space| !space.regions.parts(to..to + len).is_empty())
        || core.known_pages(id, to, to + len).next().is_some()
}

/// Drops what is gone of a range. `false`: it cannot be told just now.
fn drop_unmapped(core: &mut Core, id: SpaceId, range: Range<u64>) -> bool {
    let Some(uffd) = core.uffd(id) else { return true };
    let known: Vec<u64> = core.known_pages(id, range.start, range.end).collect();
    for address in known {
        match uffd.is_registered(address) {
            Some(true) => {}
            Some(false) => {
                if core.clear(id, address, address + PAGE, false) {
                    uffd.wake(address, PAGE);
                }
            }
            None => return false,
        }
    }
    true
}

impl Core {
    /// Addresses in a range with pages that are something else than empty.
    fn known_pages(&self, id: SpaceId, start: u64, end: u64) -> impl Iterator<Item = u64> {
        self.table.chunks_in(id, start, end).into_iter().flat_map(move |chunk| {
            let (from, to) = (start.max(chunk), end.min(chunk + crate::table::CHUNK_BYTES));
            (from..to).step_by(PAGE as usize).filter(move |&address| {
                self.table.find(id, address).is_some_and(|page| self.table.get(page).state != State::Empty)
            })
        })
    }
}
