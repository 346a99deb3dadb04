//! New memory comes under management here: its mappings are registered, and the pages that are there already taken in.
//!
//! The program goes on meanwhile, and changes its mappings. Whatever is not known for sure waits for the next look.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rackmem_policy::{Admission, PageRef};

use crate::Shared;
use crate::core::{Core, PAGE};
use crate::entry::State;
use crate::late;
use crate::procfs::{self, PageMap, Span};
use crate::table::{CHUNK_BYTES, SpaceId};

/// Attempts while the program changes its mappings, before the next look at its size.
const TRIES: u32 = 10;
/// Between two of them: about what a change takes.
const REST: Duration = Duration::from_micros(100);
/// Memory that is taken in under one hold of the lock: 128 pages, about 50 µs.
const TAKE_IN_BYTES: u64 = CHUNK_BYTES / 4;

/// Brings what a thread's process has newly mapped under management.
pub(crate) fn register_new(shared: &Shared, id: SpaceId, thread: u32) {
    let Ok(map) = PageMap::open(thread) else { return };
    let look = || procfs::spans(thread);
    // What is not registered grows beyond the limit, so that an attempt that a change spoils is made again at once.
    for _ in 0..TRIES {
        if register(shared, id, &look, &|address, count| map.present(address, count)) {
            break;
        }
        std::thread::sleep(REST);
    }
}

/// What is mapped now.
type Look<'a> = dyn Fn() -> io::Result<Vec<Span>> + 'a;
/// For each of so many pages from an address on, whether it is there.
type Present<'a> = dyn Fn(u64, usize) -> io::Result<Vec<bool>> + 'a;

/// Registers mappings that are not yet, and takes in the pages that are there.
///
/// `false`: the program changed its mappings meanwhile, and it is to be tried again.
pub(crate) fn register(shared: &Shared, id: SpaceId, look: &Look<'_>, present: &Present<'_>) -> bool {
    let as_seen = register_found(shared, id, look);
    take_in(shared, id, present) && as_seen
}

/// The list of mappings is old by the time they are registered. If just what it names were registered, a mapping that has
/// grown or moved since would fall into two, and a program that then moves or shrinks what it knows as one would be
/// refused. So whole spans are registered, from one mapping that cannot be to the next, whatever lies there now; and what is
/// ours now is seen by a second look, between which and now no change there was reported and none is due.
fn register_found(shared: &Shared, id: SpaceId, look: &Look<'_>) -> bool {
    let Ok(spans) = look() else { return true };
    let layouts = match register_spans(shared, id, &spans) {
        Registered::Nothing => return true,
        Registered::NotNow => return false,
        Registered::Some { layouts } => layouts,
    };
    let Ok(spans) = look() else { return true };
    let mut as_seen = true;
    let mut core = shared.lock();
    let Some(space) = core.space_mut(id) else { return true };
    // A child that was forked already, but of which we have not read yet, knows nothing of this registration. So the
    // memory is ours only from the next look on, when that child will have been told apart.
    if !space.pending.is_empty() || space.ask() == Some(libc::EAGAIN) {
        space.changed = true;
        return false;
    }
    for mapping in spans.into_iter().flat_map(|span| span.mappings) {
        for gap in space.regions.gaps(mapping) {
            if space.is_ours(gap.start) {
                continue;
            }
            match space.uffd.is_registered(gap.start) {
                Some(true) if !space.pending.is_touched(&gap, layouts) => {
                    space.regions.insert(gap.clone());
                    space.unseen.insert(gap);
                }
                // It came after the first look, which its size will show, or cannot be.
                Some(false) => {}
                // It has changed, or something is changing.
                Some(true) | None => as_seen = false,
            }
        }
    }
    space.changed |= !as_seen;
    core.regions_note(id);
    as_seen
}

/// What became of [`register_spans`].
enum Registered {
    /// There is nothing new, or the space is gone.
    Nothing,
    /// The mappings are changing, see `late.rs`.
    NotNow,
    /// After so many changes of what is mapped where.
    Some { layouts: u64 },
}

/// Has the kernel report missing pages.
fn register_spans(shared: &Shared, id: SpaceId, spans: &[Span]) -> Registered {
    let mut any = false;
    for span in spans {
        let mut core = shared.lock();
        let Some(space) = core.space_mut(id) else { return Registered::Nothing };
        if !space.pending.is_empty() || space.ask() == Some(libc::EAGAIN) {
            space.changed = true;
            return Registered::NotNow;
        }
        // Always, not only for what is new by the list: another mapping may have come where an old one was.
        let whole = space.uffd.register(span.range.start, span.range.end - span.range.start).is_ok();
        for gap in span.mappings.iter().flat_map(|mapping| space.regions.gaps(mapping.clone())) {
            // Fails where the mapping has gone again, or is another userfaultfd's.
            any |= !space.is_ours(gap.start)
                && (whole || space.uffd.register(gap.start, gap.end - gap.start).is_ok());
        }
    }
    match shared.lock().space(id) {
        Some(space) if any => Registered::Some { layouts: space.pending.layouts() },
        _ => Registered::Nothing,
    }
}

/// Takes in all that has not been seen yet. `false`: a change came in between, and the rest waits for the next look.
fn take_in(shared: &Shared, id: SpaceId, present: &Present<'_>) -> bool {
    loop {
        let mut core = shared.lock();
        let Some(range) = core.space(id).and_then(|space| space.unseen.iter().next()) else { return true };
        // A part of a chunk at a time: what a fault may have to wait for.
        let range = range.start..range.end.min((range.start / TAKE_IN_BYTES + 1) * TAKE_IN_BYTES);
        let Ok(seen) = take_in_part(&mut core, id, present, range.clone()) else { return true };
        let Some(space) = core.space_mut(id) else { return true };
        space.unseen.remove(range.start..seen);
        space.changed |= seen < range.end;
        drop(core);
        shared.evict.notify_one();
        shared.give_way();
        if seen < range.end {
            return false;
        }
    }
}

/// Takes in the pages of a range that are there and not known: they were there before the range was registered. Gives the
/// address from which it could not go on.
///
/// A page may be managed only if its mapping is registered *now*: pages can be moved out of any mapping, but only in a
/// registered one does the next access fault. Lists of mappings are old; the kernel's answer to a zero page for an address
/// is not: `EEXIST` says that the page is there and its mapping registered, at this moment and under the lock.
///
/// And what is not taken in must fault when it is touched. So the look at what is there counts only if nothing was changing
/// then: a page that is on its way to another place is at neither.
fn take_in_part(core: &mut Core, id: SpaceId, present: &Present<'_>, range: Range<u64>) -> io::Result<u64> {
    if !late::settle(core, id) {
        return Ok(range.start);
    }
    let present = present(range.start, ((range.end - range.start) / PAGE) as usize)?;
    let Some(space) = core.space(id) else { return Ok(range.end) };
    // What was settled may have changed this place.
    let whole = space.unseen.containing(range.start).is_some_and(|unseen| unseen.end >= range.end);
    if !whole || space.ask() == Some(libc::EAGAIN) {
        return Ok(range.start);
    }
    if !present.contains(&true) {
        return Ok(range.end);
    }
    let uffd = Arc::clone(&space.uffd);
    let Some(first) = core.table.find_or_create(id, range.start) else {
        core.warn("the page table is full: some memory is not managed".to_owned());
        return Ok(range.end);
    };
    let (mut found, mut seen) = (0, range.end);
    for (i, _) in present.iter().enumerate().filter(|&(_, &present)| present) {
        let (page, address) = (PageRef(first.0 + i as u32), range.start + i as u64 * PAGE);
        let entry = core.table.get(page);
        // What the program has just given back is still there until its `madvise` goes on: nobody knows when. Such a page
        // is known again from its next fault on.
        if entry.state != State::Empty || entry.discarded {
            continue;
        }
        match uffd.zeropage(address, PAGE).error.map(|error| error.raw_os_error()) {
            // Done: it had gone again, and its place holds zeros now, as it would after a fault.
            None | Some(Some(libc::EEXIST)) => {
                core.became_resident(page, entry, Admission::Found);
                found += 1;
            }
            // A change has begun.
            Some(Some(libc::EAGAIN)) => {
                seen = address;
                break;
            }
            Some(_) => {}
        }
    }
    core.ceiling_raise(found);
    Ok(seen)
}
