//! What the program does to its mappings: fork, mremap, munmap, madvise. Each is applied to the page states in the order
//! in which the kernel reports it, under the core's lock.
//!
//! The one subtlety is the evictor's batch. Its moves name addresses. The kernel refuses them (`EAGAIN`) from the moment
//! a mapping begins to change until the message about it has been read, so nothing wrong can happen before we read
//! it. Afterwards it would: the same address may be another mapping by then. So whoever reads closes the gate of the
//! resident thread first, and when a message about a mapping came, lists it, cancels the rest of the batch and waits until
//! the evictor has recorded what did move, before the message is acted upon.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError};

use rackmem_policy::{Admission, Eviction};
use rackmem_uapi::uffd::Event;

use crate::core::{Core, PAGE};
use crate::entry::{Entry, State};
use crate::estate::{Phase, Record, SpaceState};
use crate::journal::Happening;
use crate::late::{self, Change, Doubt, Pending};
use crate::order::Step;
use crate::space::Space;
use crate::sync::MutexGuard;
use crate::table::{CHUNK_BYTES, CHUNK_PAGES, SpaceId};
use crate::{PageRef, Shared};

/// Reads the messages of `id` and acts upon those about mappings; faults are left in `faults`.
pub(crate) fn take<'a>(
    shared: &'a Shared,
    mut core: MutexGuard<'a, Core>,
    id: SpaceId,
    messages: &mut Vec<Event>,
    faults: &mut Vec<Event>,
) -> MutexGuard<'a, Core> {
    let Some(space) = core.space(id) else { return core };
    let uffd = Arc::clone(&space.uffd);
    let gate = (core.batch == Some(id)).then(|| space.inside.clone()).flatten();
    if let Some(inside) = &gate {
        inside.resident.close_gate();
    }
    messages.clear();
    let place = core.estate.event_place(id);
    let is_noted = place.is_some();
    let result = uffd.read(messages, place);
    // Before anything else: until this is done, a child that was just forked is nobody's but ours.
    let first = is_noted.then(|| keep(&mut core, id, messages));
    let serials = shelter(&mut core, first, messages);
    let changes = messages
        .iter()
        .any(|event| !matches!(event, Event::Fault { .. }) && !means_nothing(&core, id, event));
    if let Some(inside) = &gate {
        inside.resident.open_gate(changes);
    }
    if let Err(error) = result {
        core.warn(format!("reading the userfaultfd failed: {error}"));
        return core;
    }
    // Listed before the lock is let go of: the kernel is quiet again, and only the list keeps others off these mappings.
    let mut serials = serials.into_iter();
    for (i, event) in messages.drain(..).enumerate() {
        let record = first.map(|first| first.after(i));
        match event {
            Event::Fault { .. } => faults.push(event),
            _ if means_nothing(&core, id, &event) => {}
            Event::Remove { start, end } => note(&mut core, id, Step::Remove(start..end), None, record),
            Event::Unmap { start, end } => note(&mut core, id, Step::Unmap(start..end), None, record),
            Event::Remap { from, to, len } => note(&mut core, id, Step::Move(from, to, len), None, record),
            Event::Fork { child } => {
                let child = serials.next().map(|serial| (serial, child));
                note(&mut core, id, Step::Fork, child, record);
            }
        }
    }
    if changes {
        core.hold += 1;
        while core.batch == Some(id) {
            core = shared.batch_done.wait(core).unwrap_or_else(PoisonError::into_inner);
        }
        core.hold -= 1;
    }
    late::settle(&mut core, id);
    core
}

fn note(core: &mut Core, id: SpaceId, step: Step, child: Option<(u64, OwnedFd)>, record: Option<Record>) {
    match core.space_mut(id) {
        Some(space) => space.pending.push(Change { step, child, record }),
        None => record.into_iter().for_each(|record| core.estate.event_done(record)),
    }
}

/// Strikes out what no successor needs to know of the messages that were read into the estate.
fn keep(core: &mut Core, id: SpaceId, messages: &[Event]) -> Record {
    let wanted: Vec<bool> = messages
        .iter()
        .map(|event| !matches!(event, Event::Fault { .. }) && !means_nothing(core, id, event))
        .collect(); // a handful
    core.estate.events_keep(id, messages.len(), |i| wanted[i])
}

/// Puts forked children's userfaultfds where they outlive this process; gives their serial numbers.
fn shelter(core: &mut Core, first: Option<Record>, messages: &[Event]) -> Vec<u64> {
    let mut serials = Vec::new(); // not allocated as long as it is empty
    for (i, event) in messages.iter().enumerate() {
        let Event::Fork { child } = event else { continue };
        let serial = core.badge();
        serials.push(serial);
        if core.estate.drawers.is_full() {
            turn_drawers(core);
        }
        if !core.estate.child_keep(first.map(|first| first.after(i)), serial, child.as_fd()) {
            core.warn("a forked child could not be put away: it would be lost with its pager".to_owned());
        }
    }
    serials
}

/// Forgets the userfaultfds of children that have ended or been entered.
fn turn_drawers(core: &mut Core) {
    let Core { estate, spaces, .. } = core;
    let mut living = Vec::new();
    for space in spaces.iter().flatten() {
        if space.inside.is_none() {
            living.push((space.badge, space.uffd.as_fd()));
        }
        living.extend(space.pending.children().map(|(serial, child)| (*serial, child.as_fd())));
    }
    if let Err(error) = estate.drawers.turn(&living) {
        tracing::warn!("forked children would be lost with their pager: {error}");
    }
}

/// Acts upon a change whose turn has come. `doubts`: what a child that is forked now cannot know.
pub(crate) fn apply(core: &mut Core, id: SpaceId, change: Change, doubts: &[Doubt]) {
    resume(core, id, change, Phase::Noted, doubts);
}

/// As [`apply`], for a change upon which a dead pager has acted in part. Each may be done again from its beginning, but for a
/// move whose destination has been cleared.
pub(crate) fn resume(core: &mut Core, id: SpaceId, change: Change, phase: Phase, doubts: &[Doubt]) {
    let Change { step, child, record } = change;
    let reach = |core: &mut Core, phase: Phase| {
        record.into_iter().for_each(|record| core.estate.event_phase(record, phase));
    };
    reach(core, phase.max(Phase::Begun));
    match step {
        Step::Remove(range) => remove(core, id, range.start, range.end),
        Step::Unmap(range) => unmap(core, id, range),
        Step::Move(from, to, len) => {
            if phase < Phase::Moving {
                core.clear(id, to, to + len, false);
                reach(core, Phase::Moving);
            }
            remap(core, id, from, to, len);
        }
        Step::Fork => {
            if let Some(child) = child.and_then(|(serial, child)| fork(core, id, serial, child)) {
                if let Some(space) = core.space_mut(child) {
                    space.pending.doubt(doubts);
                }
                core.newborn.push(child);
            }
        }
    }
    record.into_iter().for_each(|record| core.estate.event_done(record));
}

/// Whether a message is about our own doings: the staging area being emptied, or pages that the evictor drops while the
/// program stands still.
fn means_nothing(core: &Core, id: SpaceId, event: &Event) -> bool {
    match event {
        Event::Remove { start, .. } => {
            core.dropping == Some(id) || core.space(id).is_some_and(|space| space.is_ours(*start))
        }
        _ => false,
    }
}

/// The pages are about to be dropped: whoever asks for one afterwards gets zeros.
fn remove(core: &mut Core, id: SpaceId, start: u64, end: u64) {
    if let Some(space) = core.space_mut(id) {
        space.discards = true;
        core.estate.discards_note(id);
    }
    core.table.cover(id, start, end); // so that it can be told of every page that it was given back
    core.note_run(Happening::Discard, id, 0, start, (end - start) / PAGE);
    if core.clear(id, start, end, true) {
        wake(core, id, start, end);
    }
}

fn unmap(core: &mut Core, id: SpaceId, range: Range<u64>) {
    core.note_run(Happening::Discard, id, 0, range.start, (range.end - range.start) / PAGE);
    forget(core, id, range);
}

/// Forgets everything in a range.
pub(crate) fn forget(core: &mut Core, id: SpaceId, range: Range<u64>) {
    if let Some(space) = core.space_mut(id) {
        space.regions.remove(range.clone());
        space.unseen.remove(range.clone());
        space.changed = true;
    }
    core.regions_note(id);
    if core.clear(id, range.start, range.end, false) {
        wake(core, id, range.start, range.end);
    }
}

/// Pages moved to another address keep everything but their name.
fn remap(core: &mut Core, id: SpaceId, from: u64, to: u64, len: u64) {
    let mut waiters = false;
    for chunk in core.table.chunks_in(id, from, from + len) {
        let (start, end) = (from.max(chunk), (from + len).min(chunk + CHUNK_BYTES));
        for address in (start..end).step_by(PAGE as usize) {
            waiters |= move_entry(core, id, address, address - from + to);
        }
    }
    if let Some(space) = core.space_mut(id) {
        // What was not ours yet has come with the rest.
        let mut unseen = space.regions.gaps(from..from + len);
        unseen.extend(space.unseen.within(&(from..from + len)));
        for set in [&mut space.regions, &mut space.unseen] {
            set.remove(from..from + len);
            set.remove(to..to + len);
        }
        space.regions.insert(to..to + len);
        unseen.into_iter().for_each(|part| space.unseen.insert(part.start - from + to..part.end - from + to));
        space.changed = true;
    }
    core.regions_note(id);
    if waiters {
        wake(core, id, from, from + len);
    }
}

fn move_entry(core: &mut Core, id: SpaceId, from: u64, to: u64) -> bool {
    let Some(old) = core.table.find(id, from) else { return false };
    let mut entry = core.table.get(old);
    if entry == Entry::default() {
        return false;
    }
    let Some(new) = core.table.find_or_create(id, to) else {
        core.table.set(old, Entry::default());
        core.release(old, entry);
        core.warn("the page table is full: moved pages are no longer managed".to_owned());
        return true;
    };
    let mut waiters = false;
    match entry.state {
        State::Resident => {
            core.policy.forget(old);
            core.policy.admit(new, Admission::Found);
        }
        State::Standby => core.standby.rename(entry.place, old, new),
        // The answer to the old name is dropped when it comes; whoever wants the page asks again.
        State::Fetching => {
            entry.state = State::Far;
            waiters = true;
        }
        State::Leaving => unreachable!("events are handled while no batch is under way"),
        State::Empty | State::Far | State::Lost => {}
    }
    core.table.set(new, entry); // first, so that the page is somewhere at any time
    core.table.set(old, Entry::default());
    waiters
}

/// The child sees every page as of now: it shares far pages copy-on-write, and those on the standby list as well. Nothing is
/// installed in it here: it runs already, and the kernel refuses that while the child changes its mappings.
fn fork(core: &mut Core, id: SpaceId, badge: u64, child: OwnedFd) -> Option<SpaceId> {
    let parent = core.space(id)?;
    let (regions, unseen) = (parent.regions.clone(), parent.unseen.clone());
    let (badge_address, discards) = (parent.badge_address, parent.discards);
    let uffd = parent.uffd.child(child);
    let space = Space {
        uffd,
        pid: None,
        inside: None,
        badge,
        badge_address,
        regions,
        unseen,
        discards,
        changed: true,
        pending: Pending::default(),
    };
    space.ask(); // puts the badge there; if the child changes its mappings already, the keeper does
    let Some(new) = core.space_add(space) else {
        core.warn("too many processes: a forked child is not served and waits".to_owned());
        return None;
    };
    for chunk in core.table.chunks_in(id, 0, u64::MAX) {
        let Some(first) = core.table.find(id, chunk) else { continue };
        let Some(copy) = core.table.find_or_create(new, chunk) else {
            core.warn("the page table is full: a forked child has lost pages".to_owned());
            continue;
        };
        for i in 0..CHUNK_PAGES {
            inherit(core, PageRef(first.0 + i), PageRef(copy.0 + i));
        }
    }
    core.estate.space_state(new, SpaceState::Live);
    Some(new)
}

fn inherit(core: &mut Core, parent: PageRef, child: PageRef) {
    let mut entry = core.table.get(parent);
    if entry == Entry::default() {
        return;
    }
    entry.waited = false;
    if let Some(slot) = entry.slot {
        core.slots.share(slot);
    }
    match entry.state {
        State::Empty => {}
        State::Resident => core.resident += 1,
        State::Far | State::Fetching => {
            core.far += 1;
            entry.state = State::Far;
        }
        State::Standby => core.standby.share(entry.place, child),
        State::Lost => core.lost += 1, // the kernel copies the marker
        State::Leaving => unreachable!("events are handled while no batch is under way"),
    }
    core.table.set(child, entry);
}

fn wake(core: &Core, id: SpaceId, start: u64, end: u64) {
    if let Some(space) = core.space(id) {
        space.uffd.wake(start, end - start);
    }
}
