//! Take-over: a pager goes on where another one was killed.
//!
//! The target has waited meanwhile: its resident thread holds the userfaultfds, the page table, the standby list and the estate
//! (`estate/`). The successor takes copies, by the thread's pidfd, and does in this order:
//!
//! 1. lock the estate, which fails while its pager lives, or another successor is faster;
//! 2. call off what the resident threads have not begun of the batch that was leaving;
//! 3. open the segments again on the memory servers, within their lease. Until here a failure leaves all as it was;
//! 4. put the entries right (`books.rs`): what was leaving is looked for in the staging area, what was being fetched is
//!    far, and what may not have been stored is stored again;
//! 5. take up the messages that were read and not acted upon;
//! 6. let everybody who waits take their fault again.
//!
//! A forked child's userfaultfd is in the pager's table of descriptors alone between the `read` that brings it and the next system
//! call, which puts it into the drawer. The trustee (`trustee.rs`) has kept that table, and is ended when all is done.

mod books;
mod holder;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rackmem_far::{ExtentRecord, FarConfig, FarMemory, SlotTable};
use rackmem_inject::Resident;
use rackmem_policy::{Admission, Eviction};
use rackmem_types::PAGE_SIZE;
use rackmem_uapi::process::read_pages;
use rackmem_uapi::uffd::Recorded;

use crate::core::{Core, PAGE};
use crate::estate::{self, Estate, EstateError, InsideRecord, Left, Phase, Record, SpaceRecord, SpaceState};
use crate::journal::Journal;
use crate::kernel::{Mapping, Userfaultfd};
use crate::late::{Change, Pending};
use crate::order::Step;
use crate::space::{Inside, Space};
use crate::standby::{self, Standby};
use crate::table::{self, PageTable, SpaceId};
use crate::takeover::books::Recovered;
use crate::takeover::holder::Holder;
use crate::{PagerError, Probes, Shared, events, procfs, standby_target, trustee};

/// All user addresses but the lowest, which cannot be mapped.
const ADDRESSES: std::ops::Range<u64> = 1 << 16..(1 << 47) - PAGE;

/// What a pager needs to go on.
pub(crate) struct Inheritance {
    pub(crate) core: Core,
    pub(crate) far: FarMemory,
    /// The process that the dead pager was started for.
    pub(crate) root: u32,
    /// Spaces that have been entered.
    pub(crate) insides: Vec<(SpaceId, Inside)>,
}

/// Whether process `pid` was left by a pager that is dead, or dies within `patience`: one that was killed holds what it has
/// until the kernel has taken it apart.
pub fn is_orphan(pid: u32, patience: Duration) -> bool {
    const LOOK: Duration = Duration::from_millis(5);
    let Ok(Some((_, file))) = holder::estate_of(pid) else { return false };
    let begin = Instant::now();
    loop {
        match estate::is_held(&file) {
            Ok(true) if begin.elapsed() < patience => std::thread::sleep(LOOK),
            held => return held.is_ok_and(|held| !held),
        }
    }
}

/// Takes over what the dead pager of process `pid` left. The features of its userfaultfds become those of `probes`.
pub(crate) fn inherit(
    pid: u32,
    limit: u64,
    probes: &mut Probes,
    journal: Option<Journal>,
    far: FarConfig,
) -> Result<Inheritance, PagerError> {
    let found = holder::estate_of(pid).map_err(|_| PagerError::NoProcess(pid))?;
    let (thread, file) = found.ok_or(PagerError::NothingLeft(pid))?;
    let inode = file.metadata().map_err(PagerError::Memory)?.st_ino();
    let holder = Holder::new(pid, thread)?;
    let refused = |error| PagerError::Estate(pid, error);
    let sockets = |inodes: &[u64; 4]| {
        let [a, b, c, d] = *inodes;
        Ok([holder.socket(a)?, holder.socket(b)?, holder.socket(c)?, holder.socket(d)?])
    };
    let (mut estate, children) = Estate::inherit(file, sockets).map_err(refused)?;
    probes.restrict(estate.features());
    let mut heirs = Heirs { inode, children: children.into_iter().collect(), spaces: Vec::new() };
    for (id, record) in estate.spaces() {
        heirs.take(&mut estate, id, &record);
    }
    let extents = estate.extents().map_err(refused)?;
    let far = FarMemory::resume(far, &extents)?;

    let io = |error| refused(EstateError::Io(error));
    let lives = |id| heirs.spaces.iter().any(|&(live, _)| live == id);
    let mut table = PageTable::inherit(holder.memfd(table::NAME).map_err(io)?, lives).map_err(io)?;
    let places = books::standby_places(&table);
    let mut standby = Standby::inherit(holder.memfd(standby::NAME).map_err(io)?, &places).map_err(io)?;
    let mut slots = slots(&extents);
    let mut recover = |left: Left, (id, address), data: &mut _| {
        let space = heirs.spaces.iter().find(|&&(live, _)| live == id).map(|(_, space)| space);
        recover(&estate, space, left, address, data)
    };
    let books =
        books::audit(&mut table, &mut standby, &mut slots, estate.batch(), &mut recover).map_err(io)?;
    estate.batch_end();
    far.note_stored(books.stored.iter().copied());

    // The list keeps the size that the dead pager gave it.
    let target = standby_target(limit, standby.capacity());
    let root = estate.root();
    let mut core = Core::with((table, standby, estate), limit, target, journal, probes.can_poison);
    core.slots = slots;
    (core.resident, core.far, core.lost) = (books.resident.len() as u64, books.far, books.lost);
    let Heirs { spaces, children, .. } = heirs;
    for (id, space) in spaces {
        let index = usize::from(id);
        if core.spaces.len() <= index {
            core.spaces.resize_with(index + 1, || None);
        }
        core.spaces[index] = Some(space);
    }
    for page in books.resident {
        if core.space(core.table.place(page).0).is_some_and(|space| space.inside.is_some()) {
            core.policy.admit(page, Admission::Found);
        }
    }
    for page in books.missing {
        let entry = core.table.get(page);
        core.lose(page, entry);
        core.warn(
            "pages were lost with the pager: touching one gives SIGBUS, everything else goes on".to_owned(),
        );
    }
    for status in far.servers() {
        if let rackmem_far::ServerState::Lost(reason) = status.state {
            core.slots_lost(&far.lost(), &format!("memory server {}: {reason}", status.address));
        }
    }
    let trustee = trustee::Left::find(core.estate.trustee());
    messages(&mut core, children, trustee.as_ref());
    // From here on everything is with the resident threads.
    core.estate.trustee_set(None);
    trustee.into_iter().for_each(trustee::Left::dismiss);
    core.ceiling_reset();
    core.stuck = true; // nobody waits for room until the evictor is at work
    let insides = core.spaces().filter_map(|(id, space)| Some((id, space.inside.clone()?))).collect();
    Ok(Inheritance { core, far, root, insides })
}

/// Everybody who waits takes their fault again, and all spaces are watched.
pub(crate) fn wake(shared: &Shared) {
    let core = shared.lock();
    let ids: Vec<SpaceId> = core.spaces().map(|(id, _)| id).collect();
    for (_, space) in core.spaces() {
        space.uffd.wake(ADDRESSES.start, ADDRESSES.end - ADDRESSES.start);
    }
    drop(core);
    ids.into_iter().for_each(|id| shared.watch(id));
}

/// The spaces that are alive, as they come to light.
struct Heirs {
    /// Of the estate: other threads must hold the same one.
    inode: u64,
    /// Forked children's userfaultfds by serial number.
    children: HashMap<u64, OwnedFd>,
    spaces: Vec<(SpaceId, Space)>,
}

impl Heirs {
    fn take(&mut self, estate: &mut Estate, id: SpaceId, record: &SpaceRecord) {
        let taken = match (&record.inside, record.state) {
            // Its parent's message is still noted, and is acted upon once more.
            (_, SpaceState::Making) => None,
            (Some(inside), _) => {
                self.enter(inside, record.badge_address).map(|(uffd, inside)| (uffd, Some(inside)))
            }
            (None, _) => self.child(record.badge).map(|uffd| (uffd, None)),
        };
        let Some((uffd, inside)) = taken else {
            tracing::info!(id, ?record, "a process that the dead pager served is gone, or was not complete");
            return estate.space_forget(id);
        };
        let mut space = Space {
            uffd,
            pid: inside.as_ref().map(|inside| inside.resident.pid()),
            inside,
            badge: record.badge,
            badge_address: record.badge_address,
            regions: Default::default(),
            unseen: Default::default(),
            discards: record.discards,
            changed: true,
            pending: Pending::default(),
        };
        for range in estate.regions(id).unwrap_or_default() {
            // The dead pager may have been about to.
            space.unseen.insert(range.clone());
            space.regions.insert(range);
        }
        self.spaces.push((id, space));
    }

    fn enter(&self, record: &InsideRecord, badge: u64) -> Option<(Arc<dyn Mapping>, Inside)> {
        let InsideRecord { pid, thread, ring, code, uffd, staging } = *record;
        // A number that was given to another process meanwhile holds another estate, or none.
        let (found, file) = holder::estate_of(pid).ok()??;
        if found != thread || file.metadata().ok()?.st_ino() != self.inode {
            return None;
        }
        let holder = Holder::new(pid, thread).ok()?;
        let descriptor = holder.userfaultfd(uffd).ok()?;
        let resident = Resident::inherit(pid, thread, holder.ring().ok()?, (ring, code), holder.line().ok()?);
        let resident =
            resident.map_err(|error| tracing::warn!("a resident thread is not taken over: {error}")).ok()?;
        let inside = Inside { resident: Arc::new(resident), uffd, staging, badge };
        Some((Arc::new(Userfaultfd(descriptor)), inside))
    }

    fn child(&mut self, serial: u64) -> Option<Arc<dyn Mapping>> {
        let uffd = self.children.remove(&serial)?;
        Some(Arc::new(Userfaultfd(uffd)))
    }
}

/// All slots of all extents, free.
fn slots(extents: &[ExtentRecord]) -> SlotTable {
    let mut slots = SlotTable::default();
    let mut end = 0;
    for extent in extents.iter().filter(|extent| !extent.gone) {
        if extent.start >= end {
            end = extent.start + extent.pages;
            slots.add_extent(extent.start..end);
        }
    }
    slots
}

/// What became of a page that was leaving.
fn recover(
    estate: &Estate,
    space: Option<&Space>,
    left: Left,
    address: u64,
    data: &mut [u8; PAGE_SIZE],
) -> std::io::Result<Recovered> {
    let Some(inside) = space.and_then(|space| space.inside.as_ref()) else { return Ok(Recovered::Stayed) };
    let thread = inside.resident.thread();
    let Some(staged) = left.staged else {
        // Copied before it was dropped; what is still there was not dropped.
        return Ok(match (procfs::present(thread, address, 1)?[0], estate.batch_kept(left.index, data)) {
            (true, _) => Recovered::Stayed,
            (false, true) => Recovered::Content,
            (false, false) => Recovered::Nowhere,
        });
    };
    if !procfs::present(thread, staged, 1)?[0] {
        return Ok(Recovered::Stayed);
    }
    let mut page = [[0; PAGE_SIZE]];
    if read_pages(thread, staged, &mut page)? != 1 {
        return Err(std::io::Error::other("a page that was leaving cannot be read"));
    }
    *data = page[0];
    Ok(Recovered::Content)
}

/// Takes up what was read and not acted upon.
fn messages(core: &mut Core, mut children: HashMap<u64, OwnedFd>, trustee: Option<&trustee::Left>) {
    let ids: Vec<SpaceId> = core.spaces().map(|(id, _)| id).collect();
    let mut begun: Vec<(SpaceId, Change, Phase)> = Vec::new();
    for &id in &ids {
        for (record, phase, recorded, serial) in core.estate.events(id) {
            let Some(change) = change(core, &mut children, trustee, record, &recorded, serial) else {
                core.estate.event_done(record);
                continue;
            };
            if phase > Phase::Noted {
                begun.push((id, change, phase));
            } else if let Some(space) = core.space_mut(id) {
                space.pending.push(change);
            }
        }
    }
    for (id, change, phase) in begun {
        events::resume(core, id, change, phase, &[]);
    }
}

/// `None`: it has been acted upon, or cannot be.
fn change(
    core: &mut Core,
    children: &mut HashMap<u64, OwnedFd>,
    trustee: Option<&trustee::Left>,
    record: Record,
    recorded: &Recorded,
    serial: u64,
) -> Option<Change> {
    let mut child = None;
    let step = match *recorded {
        Recorded::Remove { start, end } => Step::Remove(start..end),
        Recorded::Unmap { start, end } => Step::Unmap(start..end),
        Recorded::Remap { from, to, len } => Step::Move(from, to, len),
        Recorded::Fork { .. } if core.spaces().any(|(_, space)| space.badge == serial && serial != 0) => {
            return None;
        }
        Recorded::Fork { number } => {
            let kept = children.remove(&serial).map(|uffd| (serial, uffd));
            let Some(kept) = kept.or_else(|| rescue(core, trustee?, record, number, serial)) else {
                core.warn(
                    "a process that was forked as the pager died is not served, and may have lost memory"
                        .to_owned(),
                );
                return None;
            };
            child = Some(kept);
            Step::Fork
        }
    };
    Some(Change { step, child, record: Some(record) })
}

/// A child whose userfaultfd was read, under this number, and had not been put into the drawer: now it is.
fn rescue(
    core: &mut Core,
    trustee: &trustee::Left,
    record: Record,
    number: i32,
    serial: u64,
) -> Option<(u64, OwnedFd)> {
    let uffd = trustee.userfaultfd(number)?;
    tracing::info!(number, "a process that was forked as the pager died was kept by its trustee");
    let serial = if serial == 0 { core.badge() } else { serial };
    if !core.estate.child_keep(Some(record), serial, uffd.as_fd()) {
        core.warn("a forked child could not be put away: it would be lost with its pager".to_owned());
    }
    Some((serial, uffd))
}
