//! Messages that come late.
//!
//! A thread that changes a mapping first makes the change and then posts its message, and a move onto another mapping posts
//! three, each after the one before has been read. So two threads' messages can arrive in another order than their changes
//! took place: a mapping moves to where another one was, its message comes, and only then the message that the other one
//! has moved away or is gone. Taken at its word that message would take the pages that have just arrived.
//!
//! What tells is whether the kernel is *quiet*: while any message is due, it refuses to install pages (`EAGAIN`). A move
//! that is read at a quiet moment is done at once. Otherwise it begins a list, and so does everything behind it wait, until a
//! quiet moment comes. Then all messages are there, and the kernel can be asked for what is true now: if a registered mapping
//! lies where a move went, then a message that came after it and empties that place tells of what was there before, and
//! goes first. While the list is not empty no page of the space is installed, moved out or registered.

use std::ops::Range;
use std::os::fd::OwnedFd;

use crate::core::Core;
use crate::events;
use crate::table::SpaceId;

/// A change of mappings that the kernel has reported.
#[derive(Debug)]
pub(crate) enum Change {
    /// Pages are about to be dropped.
    Remove(Range<u64>),
    /// A range was unmapped.
    Unmap(Range<u64>),
    /// A range moved: from, to, bytes.
    Remap(u64, u64, u64),
    /// The process forked.
    Fork(OwnedFd),
}

impl Change {
    /// The place that is empty after it.
    fn vacates(&self) -> Option<Range<u64>> {
        match self {
            Self::Unmap(range) => Some(range.clone()),
            Self::Remap(from, _, len) => Some(*from..from + len),
            Self::Remove(_) | Self::Fork(_) => None,
        }
    }
}

/// Takes a change in: acts upon it, or lists it.
pub(crate) fn note(core: &mut Core, id: SpaceId, change: Change) {
    let Some(space) = core.space_mut(id) else { return };
    let is_clear = match change {
        Change::Remap(..) => space.changes.is_empty() && space.ask() != Some(libc::EAGAIN),
        _ => space.changes.is_empty(),
    };
    if is_clear {
        events::apply(core, id, change);
    } else {
        space.changes.push(change);
    }
}

/// Takes up what is listed. `false`: something is still open.
pub(crate) fn settle(core: &mut Core, id: SpaceId) -> bool {
    if core.space(id).is_none_or(|space| space.changes.is_empty()) {
        return true;
    }
    // While a batch is leaving, its pages belong to the evictor.
    if core.batch == Some(id) || core.space(id).is_some_and(|space| space.ask() == Some(libc::EAGAIN)) {
        return false;
    }
    let Some(space) = core.space_mut(id) else { return true };
    let mut changes: Vec<Option<Change>> = space.changes.drain(..).map(Some).collect();
    let done = (0..changes.len()).all(|index| settle_one(core, id, &mut changes, index));
    if let Some(space) = core.space_mut(id) {
        space.changes.extend(changes.into_iter().flatten());
    }
    done
}

/// Acts upon one listed change, and before it upon those that came later but took place earlier. `false`: a change that
/// has begun meanwhile leaves that undecided.
fn settle_one(core: &mut Core, id: SpaceId, changes: &mut [Option<Change>], index: usize) -> bool {
    if let Some(Change::Remap(_, to, len)) = changes[index] {
        for later in index + 1..changes.len() {
            let vacated = changes[later].as_ref().and_then(Change::vacates);
            let Some(vacated) = vacated.filter(|range| range.start < to + len && to < range.end) else {
                continue;
            };
            let Some(space) = core.space(id) else { return true };
            match space.uffd.is_registered(vacated.start.max(to)) {
                Some(true) if !settle_one(core, id, changes, later) => return false,
                Some(_) => {}
                None => return false,
            }
        }
    }
    if let Some(change) = changes[index].take() {
        events::apply(core, id, change);
    }
    true
}
