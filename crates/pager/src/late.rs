//! Changes of mappings wait here until all is known about them.
//!
//! The kernel reports a change after it has taken place, and several threads' changes in another order than they took
//! place (`order.rs`). What tells that nothing is missing is whether the kernel is *quiet*: while a change is unreported, or
//! its thread has not gone on since, it refuses to install pages (`EAGAIN`). So a change that is read is listed, and acted upon
//! at the next quiet moment, together with all others that were listed. While the list is not empty no page of the space
//! is installed, moved out or registered.
//!
//! At the quiet moment the changes are put into the order in which they took place (`verdict.rs`). Pages of which that leaves
//! open whose they are, are lost: SIGBUS, not another's content.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::OwnedFd;

use crate::core::{Core, PAGE};
use crate::entry::State;
use crate::estate::Record;
use crate::events;
use crate::order::Step;
use crate::table::SpaceId;
use crate::verdict::decide;

/// Changes whose places are remembered: more than threads make between two looks at the list of mappings.
const TOUCHED_MAX: u64 = 256;

/// What the user is told.
pub(crate) const UNDECIDED: &str =
    "threads changed mappings at the same time in a way that leaves open which page is which: some are lost";

/// A change of mappings that the kernel has reported.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) step: Step,
    /// The child of a fork, and its serial number.
    pub(crate) child: Option<(u64, OwnedFd)>,
    /// Where it is noted for a successor.
    pub(crate) record: Option<Record>,
}

/// Changes of one space that wait for a quiet moment.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    changes: Vec<Change>,
    /// How many have come since the beginning that change what is mapped where: all but pages given back.
    layouts: u64,
    /// Where the latest of these did, with their numbers.
    touched: VecDeque<(u64, Range<u64>)>,
    /// In a forked child: where other threads of its parent changed mappings while it was forked.
    doubts: Vec<Doubt>,
}

/// A place of which it is open whether it was changed before the fork or after.
#[derive(Clone, Debug)]
pub(crate) struct Doubt {
    place: Range<u64>,
    /// Pages there that were not in memory before the change.
    away: Vec<u64>,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.doubts.is_empty()
    }

    /// How many changes have come since the beginning that change what is mapped where. A program whose threads come and go
    /// gives pages back all the time, and that must not keep its memory from being found.
    pub(crate) fn layouts(&self) -> u64 {
        self.layouts
    }

    /// Whether what is mapped in `range` may have changed since there were so many `layouts`.
    pub(crate) fn is_touched(&self, range: &Range<u64>, layouts: u64) -> bool {
        self.layouts - layouts > TOUCHED_MAX
            || self.touched.iter().any(|(number, place)| {
                *number > layouts && place.start < range.end && range.start < place.end
            })
    }

    fn touch(&mut self, step: &Step) {
        self.layouts += 1;
        let mut touched = |place| self.touched.push_back((self.layouts, place));
        match step {
            Step::Fork => touched(0..u64::MAX),
            step => step.places().into_iter().for_each(touched),
        }
        let oldest = self.layouts.saturating_sub(TOUCHED_MAX);
        while self.touched.front().is_some_and(|&(number, _)| number <= oldest) {
            self.touched.pop_front();
        }
    }

    pub(crate) fn push(&mut self, change: Change) {
        if !matches!(change.step, Step::Remove(_)) {
            self.touch(&change.step);
        }
        self.changes.push(change);
    }

    /// Forked children that wait for their turn.
    pub(crate) fn children(&self) -> impl Iterator<Item = &(u64, OwnedFd)> {
        self.changes.iter().filter_map(|change| change.child.as_ref())
    }

    /// These places are to be looked at before anything else.
    pub(crate) fn doubt(&mut self, doubts: &[Doubt]) {
        self.doubts.extend_from_slice(doubts);
    }
}

/// Acts upon what is listed. `false`: it has to wait.
pub(crate) fn settle(core: &mut Core, id: SpaceId) -> bool {
    let batch = core.batch == Some(id);
    let Some(space) = core.space_mut(id) else { return true };
    if space.pending.is_empty() {
        return true;
    }
    // While a batch is leaving, its pages belong to the evictor.
    if batch || space.ask() == Some(libc::EAGAIN) {
        return false;
    }
    let changes = std::mem::take(&mut space.pending.changes);
    let doubts = std::mem::take(&mut space.pending.doubts);
    let steps: Vec<Step> = changes.iter().map(|change| change.step.clone()).collect();
    let Some((order, undecided)) = decide(core, id, &steps) else {
        // A change has begun meanwhile.
        let Some(space) = core.space_mut(id) else { return true };
        (space.pending.changes, space.pending.doubts) = (changes, doubts);
        return false;
    };
    let forks = steps.contains(&Step::Fork);
    let while_forking: Vec<Doubt> = if forks { doubts_of(core, id, &steps) } else { Vec::new() };
    let mut changes: Vec<Option<Change>> = changes.into_iter().map(Some).collect();
    for index in order.steps {
        if let Some(change) = changes[index].take() {
            events::apply(core, id, change, &while_forking);
        }
    }
    for address in undecided {
        let Some(space) = core.space_mut(id) else { break };
        if space.regions.containing(address).is_none() {
            if space.uffd.is_registered(address) == Some(false) {
                continue;
            }
            // It may be the one that we take for gone.
            space.regions.insert(address..address + PAGE);
            space.unseen.insert(address..address + PAGE);
            core.regions_note(id);
        }
        lose(core, id, address);
    }
    for doubt in doubts {
        resolve(core, id, &doubt);
    }
    true
}

/// Whose page this is remains open. If it is there, it is what it is; if not, it is lost.
fn lose(core: &mut Core, id: SpaceId, address: u64) {
    let Some(page) = core.table.find_or_create(id, address) else { return };
    let entry = core.table.get(page);
    let missing = core.space(id).and_then(|space| space.uffd.is_missing(space.pid?, address).ok());
    if entry.state != State::Lost && missing != Some(false) {
        core.warn(UNDECIDED.to_owned());
        core.lose(page, entry);
    }
}

/// What a child that is forked now cannot know of the places that are changing.
fn doubts_of(core: &Core, id: SpaceId, steps: &[Step]) -> Vec<Doubt> {
    let is_away = |address: &u64| {
        let state = core.table.find(id, *address).map(|page| core.table.get(page).state);
        matches!(state, Some(State::Far | State::Fetching | State::Standby | State::Lost))
    };
    let away = |place: &Range<u64>| place.clone().step_by(PAGE as usize).filter(is_away).collect::<Vec<_>>();
    let mut doubts: Vec<Doubt> =
        steps.iter().flat_map(Step::places).map(|place| Doubt { away: away(&place), place }).collect();
    for step in steps {
        if let Step::Move(from, to, len) = *step {
            // Or they had moved before the fork.
            let away = away(&(from..from + len)).into_iter().map(|address| address - from + to).collect();
            doubts.push(Doubt { place: to..to + len, away });
        }
    }
    doubts
}

/// What is not mapped in a forked child is forgotten; what is mapped there although its parent had unmapped it, as far as
/// we know, is lost.
fn resolve(core: &mut Core, id: SpaceId, doubt: &Doubt) {
    let Some(space) = core.space(id) else { return };
    let uffd = std::sync::Arc::clone(&space.uffd);
    for range in space.regions.overlapping(&doubt.place) {
        let range = range.start.max(doubt.place.start)..range.end.min(doubt.place.end);
        let borders = [range.start, range.end - PAGE];
        if borders.iter().any(|&address| uffd.is_registered(address) == Some(false)) {
            events::forget(core, id, range);
        }
    }
    for &address in &doubt.away {
        let known = core.space(id).is_some_and(|space| space.regions.containing(address).is_some());
        if !known && uffd.is_registered(address) == Some(true) {
            lose(core, id, address);
        }
    }
}
