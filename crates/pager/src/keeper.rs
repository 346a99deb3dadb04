//! The keeper: everything that is not urgent. It finds new mappings and registers them, follows the target's descendants
//! and enters those that grow, closes spaces whose process is gone, writes the trace, and notices the end.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rackmem_inject::{InjectError, Resident, dismiss, process_status, start};
use rackmem_policy::{Admission, PageRef};
use rackmem_uapi::process::read_pages;

use crate::core::PAGE;
use crate::entry::State;
use crate::kernel::{Inhabitant, Mapping};
use crate::late::{self, Pending};
use crate::procfs::{self, PageMap, Span};
use crate::space::{Inside, Space};
use crate::table::{CHUNK_BYTES, SpaceId};
use crate::tracing_file::TraceFile;
use crate::{PagerError, Probes, Shared, enter};

/// How often sizes are looked at while they change: growth that goes unseen for so long is what a program can touch in it.
const TICK_BUSY: Duration = Duration::from_millis(1);
/// How often when nothing changes.
const TICK_IDLE: Duration = Duration::from_millis(10);
/// Attempts at registering new memory while the program changes its mappings, before the next look at its size.
const REGISTER_TRIES: u32 = 10;
/// Between two of them: about what a change takes.
const REGISTER_REST: Duration = Duration::from_micros(100);
/// How often processes are looked at.
const TICK_PROCESSES: Duration = Duration::from_millis(20);
/// Memory that is taken in under one hold of the lock: 128 pages, about 50 µs.
const TAKE_IN_BYTES: u64 = CHUNK_BYTES / 4;
/// A descendant with less private memory than this is left alone: managing it costs more than it holds.
const ENTER_BYTES: u64 = 4 << 20;

/// The keeper's own state.
pub(crate) struct Keeper<'a> {
    shared: &'a Shared,
    probes: Probes,
    root: u32,
    /// Descendants that were seen alive, the root included.
    followed: HashSet<u32>,
    /// Processes that cannot be entered; not tried again.
    refused: HashSet<u32>,
    sizes: Vec<(u64, u64)>,
    trace: Option<TraceFile>,
}

impl<'a> Keeper<'a> {
    pub(crate) fn new(shared: &'a Shared, probes: Probes, root: u32, trace: Option<TraceFile>) -> Self {
        let followed = HashSet::from([root]);
        Self { shared, probes, root, followed, refused: HashSet::new(), sizes: Vec::new(), trace }
    }

    /// Follows these processes too.
    pub(crate) fn following(mut self, pids: impl IntoIterator<Item = u32>) -> Self {
        self.followed.extend(pids);
        self
    }

    /// Keeps house until the target and all its descendants are gone, or the pager stops.
    pub(crate) fn run(&mut self) {
        let mut processes_at = Instant::now();
        while !self.shared.stop.load(Relaxed) {
            let changed = self.find_mappings();
            if processes_at.elapsed() >= TICK_PROCESSES {
                processes_at = Instant::now();
                self.close_dead();
                self.follow();
                self.follow_credentials();
                if let Some(trace) = &mut self.trace {
                    trace.drain(self.shared);
                }
                if self.is_over() {
                    break;
                }
            }
            std::thread::sleep(if changed { TICK_BUSY } else { TICK_IDLE });
        }
        if let Some(trace) = &mut self.trace {
            trace.finish(self.shared);
        }
    }

    fn is_over(&self) -> bool {
        self.followed.is_empty() && self.shared.lock().spaces().next().is_none()
    }

    /// Registers memory that has come since the last look. `true` if something changed.
    fn find_mappings(&mut self) -> bool {
        if self.shared.detaching.load(Relaxed) {
            return false;
        }
        let spaces: Vec<(SpaceId, u32, bool)> = {
            let mut core = self.shared.lock();
            let ids: Vec<_> = core
                .spaces()
                .filter_map(|(id, space)| Some((id, space.inside.as_ref()?.resident.thread())))
                .collect();
            ids.into_iter()
                .map(|(id, thread)| {
                    let changed = core.space_mut(id).is_some_and(|space| std::mem::take(&mut space.changed));
                    (id, thread, changed)
                })
                .collect()
        };
        let mut any = false;
        for (id, thread, changed) in spaces {
            let index = usize::from(id);
            if self.sizes.len() <= index {
                self.sizes.resize(index + 1, (0, 0));
            }
            let Ok(sizes) = procfs::sizes(thread) else { continue };
            if sizes != self.sizes[index] || changed {
                self.sizes[index] = sizes;
                any = true;
                register_new(self.shared, id, thread);
            }
        }
        any
    }

    /// Closes spaces whose process ended or replaced its program.
    fn close_dead(&mut self) {
        let dead: Vec<SpaceId> = {
            let core = self.shared.lock();
            core.spaces().filter(|(_, space)| is_dead(space)).map(|(id, _)| id).collect()
        };
        for id in dead {
            tracing::debug!(id, "the memory of a process is gone");
            self.shared.close(id);
            if let Some(sizes) = self.sizes.get_mut(usize::from(id)) {
                *sizes = (0, 0);
            }
        }
        let alive = |pid: &u32| process_status(*pid).is_ok_and(|status| !matches!(status.state, 'Z' | 'X'));
        self.followed.retain(alive);
        self.refused.retain(alive);
    }

    /// Finds descendants, and enters those that are worth it.
    fn follow(&mut self) {
        if self.shared.detaching.load(Relaxed) {
            return;
        }
        let mut queue: Vec<u32> = self.followed.iter().copied().collect();
        while let Some(pid) = queue.pop() {
            for child in procfs::children(pid) {
                if self.followed.insert(child) {
                    queue.push(child);
                }
            }
        }
        let entered: HashSet<u32> = {
            let core = self.shared.lock();
            core.spaces().filter_map(|(_, space)| Some(space.inside.as_ref()?.resident.pid())).collect()
        };
        let candidates: Vec<u32> = self
            .followed
            .iter()
            .copied()
            .filter(|pid| !entered.contains(pid) && !self.refused.contains(pid))
            .collect();
        for pid in candidates {
            self.consider(pid);
        }
    }

    fn consider(&mut self, pid: u32) {
        let Ok(status) = process_status(pid) else { return };
        if !status.has_memory || matches!(status.state, 'Z' | 'X') {
            return;
        }
        // A forked child is known by the number that was put onto its badge page before it could run.
        let child = self.forked_child(pid);
        if let Some(id) = child
            && let Some(space) = self.shared.lock().space_mut(id)
        {
            space.pid = Some(pid);
        }
        let worth = pid == self.root || status.anonymous_resident >= ENTER_BYTES;
        if !worth || status.tracer != 0 || procfs::is_entered(pid) {
            return;
        }
        match self.enter(pid, child) {
            Ok(()) => {}
            // One that could not be stopped just now is tried again.
            Err(PagerError::Inject(
                InjectError::Busy(..) | InjectError::Stopped(_) | InjectError::Shared { .. },
            )) => {}
            Err(error) => {
                tracing::info!(pid, "a descendant is not managed: {error}");
                self.refused.insert(pid);
            }
        }
    }

    /// What the program has given up its resident threads must not have.
    fn follow_credentials(&self) {
        let residents: Vec<Arc<dyn Inhabitant>> = {
            let core = self.shared.lock();
            core.spaces()
                .filter_map(|(_, space)| Some(Arc::clone(&space.inside.as_ref()?.resident)))
                .collect()
        };
        for resident in residents {
            match resident.follow_credentials() {
                Ok(false) => {}
                Ok(true) => {
                    tracing::debug!(pid = resident.pid(), "the resident thread follows the program's rights")
                }
                Err(error) => {
                    tracing::debug!(pid = resident.pid(), "its rights could not be followed: {error}")
                }
            }
        }
    }

    fn forked_child(&self, pid: u32) -> Option<SpaceId> {
        let unknown: Vec<(SpaceId, u64, u64)> = {
            let core = self.shared.lock();
            let unentered = core.spaces().filter(|(_, space)| space.inside.is_none());
            let look = |(id, space): (SpaceId, &Space)| {
                space.ask();
                (id, space.badge_address, space.badge)
            };
            unentered.map(look).collect()
        };
        unknown.into_iter().find_map(|(id, address, badge)| {
            let mut page = [[0; PAGE as usize]];
            let read = read_pages(pid, address, &mut page).is_ok_and(|count| count == 1);
            (read && page[0][..8] == badge.to_ne_bytes()).then_some(id)
        })
    }

    fn enter(&mut self, pid: u32, child: Option<SpaceId>) -> Result<(), PagerError> {
        let (resident, stopped) = start(pid)?;
        stopped.release();
        let resident = Arc::new(resident);
        let result = match child {
            Some(id) => adopt_child(self.shared, id, Arc::clone(&resident)),
            None => adopt(self.shared, &self.probes, Arc::clone(&resident)).map(|_| ()),
        };
        if result.is_err() {
            dismiss(&resident)?;
        }
        result
    }
}

/// Takes an entered process under management.
pub(crate) fn adopt(
    shared: &Shared,
    probes: &Probes,
    resident: Arc<Resident>,
) -> Result<SpaceId, PagerError> {
    let (pid, thread) = (resident.pid(), resident.thread());
    let (uffd, inside) = enter::enter(resident, probes, &shared.heirlooms)?;
    let space = new_space(uffd, pid, inside);
    let mut core = shared.lock();
    let id = core.space_add(space).ok_or(PagerError::TooManyProcesses)?;
    drop(core);
    shared.watch(id);
    register_new(shared, id, thread);
    Ok(id)
}

pub(crate) fn new_space(uffd: Arc<dyn Mapping>, pid: u32, inside: Inside) -> Space {
    Space {
        uffd,
        pid: Some(pid),
        badge: 0,
        badge_address: inside.badge,
        inside: Some(inside),
        regions: Default::default(),
        discards: false,
        changed: false,
        pending: Pending::default(),
    }
}

/// Makes a forked child one whose pages can leave.
fn adopt_child(shared: &Shared, id: SpaceId, resident: Arc<Resident>) -> Result<(), PagerError> {
    let thread = resident.thread();
    let (uffd, badge) = {
        let core = shared.lock();
        let Some(space) = core.space(id) else { return Ok(()) };
        (Arc::clone(&space.uffd), space.badge_address)
    };
    let inside = enter::enter_child(resident, &*uffd, badge, &shared.heirlooms)?;
    entered(shared, id, inside);
    register_new(shared, id, thread);
    Ok(())
}

/// A forked child has been entered: its resident pages can leave from now on.
pub(crate) fn entered(shared: &Shared, id: SpaceId, inside: Inside) {
    let mut core = shared.lock();
    let Some(space) = core.space_mut(id) else { return };
    space.inside = Some(inside);
    core.inside_note(id);
    for chunk in core.table.chunks_in(id, 0, u64::MAX) {
        let Some(first) = core.table.find(id, chunk) else { continue };
        for i in 0..crate::table::CHUNK_PAGES {
            let page = PageRef(first.0 + i);
            let entry = core.table.get(page);
            if entry.state == State::Resident {
                core.became_resident(page, entry, Admission::Found);
            }
        }
    }
}

fn register_new(shared: &Shared, id: SpaceId, thread: u32) {
    let Ok(map) = PageMap::open(thread) else { return };
    let look = || procfs::spans(thread);
    // What is not registered grows beyond the limit, so that an attempt that a change spoils is made again at once.
    for _ in 0..REGISTER_TRIES {
        if register(shared, id, &look, &|address, count| map.present(address, count)) {
            break;
        }
        std::thread::sleep(REGISTER_REST);
    }
}

/// What is mapped now.
type Look<'a> = dyn Fn() -> io::Result<Vec<Span>> + 'a;
/// For each of so many pages from an address on, whether it is there.
type Present<'a> = dyn Fn(u64, usize) -> io::Result<Vec<bool>> + 'a;

/// Registers mappings that are not yet, and takes in the pages that are there.
///
/// The list of mappings is old by the time they are registered. If just what it names were registered, a mapping that has
/// grown or moved since would fall into two, and a program that then moves or shrinks what it knows as one would be
/// refused. So whole spans are registered, from one mapping that cannot be to the next, whatever lies there now; and what is
/// ours now is seen by a second look, between which and now no change there was reported and none is due.
///
/// `false`: a change came in between, and it is to be tried again.
pub(crate) fn register(shared: &Shared, id: SpaceId, look: &Look<'_>, present: &Present<'_>) -> bool {
    let Ok(spans) = look() else { return true };
    let layouts = match register_spans(shared, id, &spans) {
        Registered::Nothing => return true,
        Registered::NotNow => return false,
        Registered::Some { layouts } => layouts,
    };
    let Ok(spans) = look() else { return true };
    let mut found = Vec::new();
    let mut as_seen = true;
    {
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
                    Some(true) if !space.pending.is_touched(&gap, layouts) => found.push(gap),
                    // It came after the first look, which its size will show, or cannot be.
                    Some(false) => {}
                    // It has changed, or something is changing.
                    Some(true) | None => as_seen = false,
                }
            }
        }
        space.changed |= !as_seen;
        found.iter().for_each(|gap| space.regions.insert(gap.clone()));
        core.regions_note(id);
    }
    for gap in found {
        take_in(shared, id, present, gap);
    }
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

/// Takes in the pages of a range that are there and not known: they were there before the range was registered.
///
/// A page may be managed only if its mapping is registered *now*: pages can be moved out of any mapping, but only in a
/// registered one does the next access fault. Lists of mappings are old; the kernel's answer to a zero page for an address
/// is not: `EEXIST` says that the page is there and its mapping registered, at this moment and under the lock.
fn take_in(shared: &Shared, id: SpaceId, present: &Present<'_>, range: Range<u64>) {
    let mut start = range.start;
    while start < range.end {
        // A part of a chunk at a time: what a fault may have to wait for.
        let end = range.end.min((start / TAKE_IN_BYTES + 1) * TAKE_IN_BYTES);
        let Ok(present) = present(start, ((end - start) / PAGE) as usize) else { return };
        if present.contains(&true) && !take_in_present(shared, id, start, &present) {
            let mut core = shared.lock();
            let Some(space) = core.space_mut(id) else { return };
            space.regions.remove(start..range.end); // at the next look
            space.changed = true;
            core.regions_note(id);
            return;
        }
        start = end;
    }
    shared.evict.notify_one();
}

fn take_in_present(shared: &Shared, id: SpaceId, start: u64, present: &[bool]) -> bool {
    let mut core = shared.lock();
    if !late::settle(&mut core, id) {
        return false;
    }
    let Some(uffd) = core.uffd(id) else { return false };
    let Some(first) = core.table.find_or_create(id, start) else {
        core.warn("the page table is full: some memory is not managed".to_owned());
        return false;
    };
    for (i, _) in present.iter().enumerate().filter(|&(_, &present)| present) {
        let (page, address) = (PageRef(first.0 + i as u32), start + i as u64 * PAGE);
        let entry = core.table.get(page);
        // What the program has just given back is still there until its `madvise` goes on: nobody knows when. Such a page
        // is known again from its next fault on.
        if entry.state != State::Empty || entry.discarded {
            continue;
        }
        let asked = uffd.zeropage(address, PAGE);
        // Done: it had gone again, and its place holds zeros now, as it would after a fault.
        if asked.error.is_none_or(|error| error.raw_os_error() == Some(libc::EEXIST)) {
            core.became_resident(page, entry, Admission::Found);
        }
    }
    core.ceiling_raise();
    true
}

/// Whether a space's memory is gone.
pub(crate) fn is_dead(space: &Space) -> bool {
    match &space.inside {
        Some(inside) => inside.resident.is_gone(),
        None => space.ask() == Some(libc::ESRCH),
    }
}

impl Shared {
    /// Has the fault thread watch a new space.
    pub(crate) fn watch(&self, id: SpaceId) {
        self.newcomers.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        self.wake_server();
    }

    /// Forgets a space, once no batch is leaving it.
    pub(crate) fn close(&self, id: SpaceId) {
        let mut core = self.lock();
        core.hold += 1;
        while core.batch == Some(id) {
            core = self.batch_done.wait(core).unwrap_or_else(PoisonError::into_inner);
        }
        core.hold -= 1;
        core.space_close(id);
    }
}
