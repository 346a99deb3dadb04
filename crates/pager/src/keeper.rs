//! The keeper: everything that is not urgent. It finds new mappings and registers them, follows the target's descendants
//! and enters those that grow, closes spaces whose process is gone, writes the trace, and notices the end.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rackmem_inject::{InjectError, Resident, dismiss, process_status, start};
use rackmem_policy::{Admission, PageRef};
use rackmem_uapi::process::read_pages;

use crate::core::PAGE;
use crate::entry::State;
use crate::kernel::{Inhabitant, Mapping};
use crate::late::Pending;
use crate::procfs;
use crate::register::register_new;
use crate::space::{Inside, Space};
use crate::table::SpaceId;
use crate::tracing_file::TraceFile;
use crate::{PagerError, Probes, Shared, enter};

/// How often sizes are looked at while they change: growth that goes unseen for so long is what a program can touch in it.
const TICK_BUSY: Duration = Duration::from_millis(1);
/// How often when nothing changes.
const TICK_IDLE: Duration = Duration::from_millis(10);
/// How often processes are looked at.
const TICK_PROCESSES: Duration = Duration::from_millis(20);
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
        unseen: Default::default(),
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
