//! The fault thread: reads what the targets' userfaultfds report and answers it.
//!
//! One thread for all spaces of a target; what it waits for is the business of `poll.rs`. A fault that cannot be answered yet
//! (its page is on the way, its mapping is changing, there is no room) is left and taken up again. Nothing is allocated
//! per fault.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use rackmem_far::{Event as FarEvent, ReadRequest};
use rackmem_policy::{Admission, PageRef, WINDOW_PAGES_MAX};
use rackmem_types::{PAGE_SIZE, PageData};
use rackmem_uapi::uffd::{self, Event};

use crate::Shared;
use crate::core::{Core, PAGE};
use crate::entry::State;
use crate::events;
use crate::install::{self, Fault, Fetch, Installer};
use crate::journal::Happening;
use crate::kernel::Mapping;
use crate::late;
use crate::sync::MutexGuard;
use crate::table::{CHUNK_PAGES, SpaceId};
use crate::transfer::Transfer;

/// Fetches under way at most. An entry names its fetch with 16 bits; 4,096 pages are 16 MiB on the wire.
const FETCHES_MAX: usize = 4096;

/// What a program gets at once that fills fresh memory: 256 KiB.
static ZEROS: [PageData; 64] = [[0; PAGE_SIZE]; 64];

/// The thread's own state.
pub(crate) struct Server<'a, P> {
    pub(crate) shared: &'a Shared,
    pub(crate) port: P,
    fetches: Vec<Option<Fetch>>,
    free: Vec<u16>,
    retries: Vec<Fault>,
    /// The retries that are being taken up: the other half of a pair of buffers.
    again: Vec<Fault>,
    messages: Vec<Event>,
    faults: Vec<Event>,
    pub(crate) requests: Vec<ReadRequest>,
    /// Pages that are to be asked for, and the faults for which, in a moment.
    demanded: Vec<ReadRequest>,
    followed: Vec<Fault>,
    /// Chunks that have not been looked through yet for what has to be moved, the next one last.
    pub(crate) sweep: Vec<(SpaceId, u64)>,
    installer: Installer,
    /// Forked children that nobody polls yet.
    pub(crate) children: Vec<SpaceId>,
    /// Some space's changes wait for a quiet moment.
    unsettled: bool,
}

impl<'a, P: Transfer> Server<'a, P> {
    pub(crate) fn new(shared: &'a Shared, port: P) -> Self {
        Self {
            shared,
            port,
            fetches: vec![None; FETCHES_MAX],
            free: (0..FETCHES_MAX as u16).rev().collect(),
            retries: Vec::with_capacity(1024),
            again: Vec::with_capacity(1024),
            messages: Vec::with_capacity(uffd::MESSAGES_MAX),
            faults: Vec::with_capacity(2 * uffd::MESSAGES_MAX),
            requests: Vec::with_capacity(WINDOW_PAGES_MAX as usize),
            demanded: Vec::with_capacity(2 * uffd::MESSAGES_MAX),
            followed: Vec::with_capacity(2 * uffd::MESSAGES_MAX),
            sweep: Vec::new(),
            installer: Installer::new(),
            children: Vec::new(),
            unsettled: false,
        }
    }

    /// Takes up what has come: messages of the spaces in `ready`, answers if `port_ready`, and what had to wait. `true`: the
    /// evictor has work.
    pub(crate) fn round(&mut self, ready: &[SpaceId], port_ready: bool) -> bool {
        let mut core = self.shared.lock_soon();
        for &id in ready {
            core = self.take_messages(core, id);
        }
        // Transports that read in place have their answers at once, and say so by a deadline that has come.
        if port_ready || self.port.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
            core = self.take_pages(core);
        }
        core = self.take_retries(core);
        let open = core.spaces().filter(|(_, space)| !space.pending.is_empty()).map(|(id, _)| id);
        let mut open: Vec<SpaceId> = open.collect(); // nearly always empty, and then nothing is allocated
        open.retain(|&id| !late::settle(&mut core, id));
        self.unsettled = !open.is_empty();
        self.children.append(&mut core.newborn);
        if self.shared.detaching.load(Relaxed) {
            self.bring_home(&mut core);
        } else if core.vacating {
            self.move_away(&mut core);
        }
        core.local() + core.headroom() / 2 >= core.limit || core.watched.is_some()
    }

    /// Whether faults are to be taken up again soon.
    pub(crate) fn has_retries(&self) -> bool {
        !self.retries.is_empty() || self.unsettled
    }

    fn take_messages(&mut self, core: MutexGuard<'a, Core>, id: SpaceId) -> MutexGuard<'a, Core> {
        let since = Instant::now();
        let mut core = events::take(self.shared, core, id, &mut self.messages, &mut self.faults);
        let mut faults = std::mem::take(&mut self.faults);
        for event in faults.drain(..) {
            if let Event::Fault { address, write, thread } = event {
                let fault = Fault {
                    space: id,
                    address: address & !(PAGE - 1),
                    exact: address,
                    write,
                    thread,
                    since,
                    doubts: 0,
                };
                core.counters.faults += 1;
                core = self.answer(core, fault);
            }
        }
        self.faults = faults;
        self.ask(&mut core);
        core
    }

    fn take_retries(&mut self, mut core: MutexGuard<'a, Core>) -> MutexGuard<'a, Core> {
        if self.retries.is_empty() {
            return core;
        }
        std::mem::swap(&mut self.retries, &mut self.again);
        let mut again = std::mem::take(&mut self.again);
        for fault in again.drain(..) {
            core = self.answer(core, fault);
        }
        self.again = again;
        self.ask(&mut core);
        core
    }

    /// Answers a fault, or sees to it that it will be.
    fn answer(&mut self, mut core: MutexGuard<'a, Core>, fault: Fault) -> MutexGuard<'a, Core> {
        let Some(space) = core.space(fault.space) else { return core };
        if space.is_ours(fault.address) {
            // A page that the program had given back and the kernel took while it was on its way out: zeros.
            space.uffd.zeropage(fault.address, PAGE);
            return core;
        }
        core.watch_access(fault.space, fault.exact, fault.write, fault.thread, fault.since);
        if !late::settle(&mut core, fault.space) {
            self.retries.push(fault); // which page this is, is not known yet
            return core;
        }
        let Some(space) = core.space(fault.space) else { return core };
        let ours = space.inside.as_ref().is_some_and(|inside| inside.resident.thread() == fault.thread);
        let Some(page) = core.table.find_or_create(fault.space, fault.address) else {
            core.warn(
                "the page table is full: new pages cannot be managed, and their threads wait".to_owned(),
            );
            return core;
        };
        let entry = core.table.get(page);
        if core.is_full() && !ours && matches!(entry.state, State::Empty | State::Far) {
            self.retries.push(fault);
            return core;
        }
        match entry.state {
            State::Empty => self.zero_fill(core, page, fault),
            State::Standby => self.reclaim(core, page, fault),
            State::Far => {
                self.fetch(&mut core, page, fault);
                core
            }
            State::Fetching => {
                self.join(&mut core, page, fault);
                core
            }
            State::Leaving => {
                let mut entry = entry;
                entry.waited = true;
                core.table.set(page, entry);
                core.waiting.entry(page).or_insert(fault.since);
                core
            }
            State::Resident => self.doubt(core, page, fault),
            State::Lost => {
                self.tell_lost(&core, fault);
                core
            }
        }
    }

    /// Zeros for a page without content, and for its empty neighbours: a program that touches one page of fresh memory
    /// will touch the next, and a later write to a page of zeros is the kernel's own affair.
    ///
    /// Such a write costs the program a second fault, though. One that comes to a chunk to write for the second time will
    /// most likely fill it: it gets pages of its own at once.
    fn zero_fill(
        &mut self,
        mut core: MutexGuard<'a, Core>,
        page: PageRef,
        fault: Fault,
    ) -> MutexGuard<'a, Core> {
        let len = core.empty_run(fault.space, page, fault.address);
        let Some(space) = core.space(fault.space) else { return core };
        let discards = space.discards;
        let own = fault.write && core.table.fills(page) > 0;
        let mut progress = if own {
            space.uffd.copy_run(fault.address, ZEROS.as_ptr() as u64, ZEROS.len().min(len as usize))
        } else {
            space.uffd.zeropage(fault.address, len * PAGE)
        };
        if progress.done == 0 && (own || len > 1) {
            // The run may cross from one mapping into its neighbour, which the kernel refuses as a whole.
            progress = space.uffd.zeropage(fault.address, PAGE);
        }
        let done = (progress.done / PAGE) as u32;
        for i in 0..done {
            let page = PageRef(page.0 + i);
            let mut entry = core.table.get(page);
            entry.discarded = discards;
            core.became_resident(page, entry, Admission::FirstTouch);
        }
        core.table.count_fill(page);
        core.note(Happening::FaultZero { write: fault.write }, fault.space, fault.thread, fault.address);
        if done > 0 {
            core.waited(fault.since, false);
            return core;
        }
        self.failed(core, page, fault, progress.error)
    }

    /// Takes a page back from the standby list.
    fn reclaim(
        &mut self,
        mut core: MutexGuard<'a, Core>,
        page: PageRef,
        fault: Fault,
    ) -> MutexGuard<'a, Core> {
        let entry = core.table.get(page);
        let Some(space) = core.space(fault.space) else { return core };
        let progress = space.uffd.copy(fault.address, core.standby.address(entry.place));
        if progress.done == PAGE {
            core.became_resident(page, entry, Admission::Reclaimed);
            core.counters.reclaimed += 1;
            core.waited(fault.since, false);
            core.note(
                Happening::FaultStandby { write: fault.write },
                fault.space,
                fault.thread,
                fault.address,
            );
            return core;
        }
        self.failed(core, page, fault, progress.error)
    }

    /// Asks for a far page, and for those that the thread will want next.
    fn fetch(&mut self, core: &mut Core, page: PageRef, fault: Fault) {
        let Some(request) = self.request(core, page, Some(fault)) else {
            self.retries.push(fault);
            return;
        };
        self.demanded.push(request);
        self.followed.push(fault);
        core.note(Happening::FaultFar { write: fault.write }, fault.space, fault.thread, fault.address);
    }

    /// Asks for the pages of all faults that were taken up together, at once: a request costs the CPU more than all else in a
    /// fault. What their threads will want next comes behind them.
    fn ask(&mut self, core: &mut Core) {
        if self.demanded.is_empty() {
            return;
        }
        self.port.read(&self.demanded);
        self.demanded.clear();
        let mut followed = std::mem::take(&mut self.followed);
        for fault in followed.drain(..) {
            self.read_ahead(core, fault);
        }
        self.followed = followed;
    }

    fn read_ahead(&mut self, core: &mut Core, fault: Fault) {
        let Some(window) = core.prefetcher.fault(fault.thread, fault.address / PAGE) else { return };
        let room = core.limit.saturating_sub(core.local() + self.port.in_flight() as u64);
        self.requests.clear();
        let mut looked = 0;
        for number in window.pages() {
            let found = core.table.find(fault.space, number * PAGE);
            if let Some(page) = found.filter(|&page| core.table.get(page).state == State::Far) {
                if self.requests.len() as u64 >= room {
                    break;
                }
                let Some(request) = self.request(core, page, None) else { break };
                self.requests.push(request);
                core.counters.prefetched += 1;
                core.note(Happening::Prefetch, fault.space, fault.thread, number * PAGE);
            }
            looked += 1;
        }
        // What there is no room for now is the next window's: nobody should wait for each of these pages by itself.
        core.prefetcher.cut(fault.thread, window.count - looked);
        if !self.requests.is_empty() {
            self.port.read(&self.requests);
        }
    }

    /// Marks a far page as fetched. `None`: too many are under way.
    pub(crate) fn request(
        &mut self,
        core: &mut Core,
        page: PageRef,
        waiter: Option<Fault>,
    ) -> Option<ReadRequest> {
        let mut entry = core.table.get(page);
        let slot = entry.slot.expect("a far page has a slot");
        let tag = self.free.pop()?;
        self.fetches[usize::from(tag)] = Some(Fetch { page, waiter, demanded: waiter.is_some() });
        entry.state = State::Fetching;
        entry.place = tag;
        core.table.set(page, entry);
        Some(ReadRequest { tag: tag.into(), slot })
    }

    /// Asks for far pages that nobody has asked for, because the target is to be let go.
    fn bring_home(&mut self, core: &mut Core) {
        let spaces: Vec<SpaceId> = core.spaces().map(|(id, _)| id).collect();
        for id in spaces {
            for chunk in core.table.chunks_in(id, 0, u64::MAX) {
                if self.free.len() < FETCHES_MAX / 2 {
                    return;
                }
                self.bring_chunk_home(core, id, chunk);
            }
        }
    }

    fn bring_chunk_home(&mut self, core: &mut Core, id: SpaceId, chunk: u64) {
        if !late::settle(core, id) {
            return; // which pages these are, is not known yet
        }
        let Some(first) = core.table.find(id, chunk) else { return };
        let Some(uffd) = core.uffd(id) else { return };
        self.requests.clear();
        for i in 0..CHUNK_PAGES {
            let page = PageRef(first.0 + i);
            let entry = core.table.get(page);
            let address = chunk + u64::from(i) * PAGE;
            match entry.state {
                State::Far => {
                    let request = self.request(core, page, None);
                    self.requests.extend(request);
                }
                State::Standby => {
                    take_back(core, &*uffd, page, address);
                }
                _ => {}
            }
        }
        if !self.requests.is_empty() {
            core.counters.prefetched += self.requests.len() as u64;
            self.port.read(&self.requests);
        }
    }

    /// Somebody waits for a page that is on its way already.
    fn join(&mut self, core: &mut Core, page: PageRef, fault: Fault) {
        let tag = core.table.get(page).place;
        if let Some(fetch) = &mut self.fetches[usize::from(tag)]
            && fetch.waiter.is_none()
        {
            fetch.waiter = Some(fault);
        }
        self.read_ahead(core, fault);
    }

    /// A thread says that a resident page is missing. Mostly the page came after the thread had reported: it is woken, and
    /// finds it. If it comes again, the page may have been dropped by the program between our answer and its `madvise`,
    /// which is known; otherwise something is wrong, and SIGBUS is the answer, not zeros.
    fn doubt(
        &mut self,
        mut core: MutexGuard<'a, Core>,
        page: PageRef,
        mut fault: Fault,
    ) -> MutexGuard<'a, Core> {
        /// The event that was queued before the page came is one; a second is another thread's.
        const DOUBTS_MAX: u8 = 2;
        let Some(space) = core.space(fault.space) else { return core };
        let uffd = std::sync::Arc::clone(&space.uffd);
        let pid = space.pid;
        fault.doubts += 1;
        let missing = fault.doubts > DOUBTS_MAX
            || pid.is_some_and(|pid| uffd.is_missing(pid, fault.address).unwrap_or(false));
        if !missing {
            uffd.wake(fault.address, PAGE);
            core.waited(fault.since, false);
            return core;
        }
        let mut entry = core.table.get(page);
        if entry.discarded {
            let progress = uffd.zeropage(fault.address, PAGE);
            if progress.done == PAGE {
                if let Some(slot) = entry.slot.take() {
                    core.slot_release(slot);
                }
                entry.slot_valid = false;
                core.became_resident(page, entry, Admission::FirstTouch);
                return core;
            }
            return self.failed(core, page, fault, progress.error);
        }
        match uffd.poison(fault.address).error {
            None => {
                tracing::error!(?entry, ?fault, "a resident page is missing");
                core.warn(format!(
                    "page {:#x} is missing although nothing took it away: it is poisoned",
                    fault.address
                ));
                core
            }
            // A change that is due may say what took it away.
            error => self.failed(core, page, fault, error),
        }
    }

    /// An installation did not succeed.
    fn failed(
        &mut self,
        mut core: MutexGuard<'a, Core>,
        page: PageRef,
        fault: Fault,
        error: Option<std::io::Error>,
    ) -> MutexGuard<'a, Core> {
        let code = error.as_ref().and_then(std::io::Error::raw_os_error);
        match code {
            // The page is there: what the program sees is the truth.
            Some(libc::EEXIST) => {
                let entry = core.table.get(page);
                core.became_resident(page, entry, Admission::Found);
                if let Some(space) = core.space(fault.space) {
                    space.uffd.wake(fault.address, PAGE);
                }
            }
            // The mappings are changing, or there is no memory just now.
            Some(libc::EAGAIN | libc::ENOMEM) => self.retries.push(fault),
            // The mapping or the process is gone; its message is on the way.
            Some(libc::ENOENT | libc::ESRCH | libc::EINVAL | libc::EFAULT) => {
                if let Some(space) = core.space(fault.space) {
                    space.uffd.wake(fault.address, PAGE);
                }
            }
            _ => core.warn(format!(
                "a page could not be installed: {}",
                error.map_or_else(String::new, |e| e.to_string())
            )),
        }
        core
    }

    /// Somebody touched a lost page that was not poisoned, because the mappings were just changing or because the kernel is too
    /// old for that: there a signal says it.
    fn tell_lost(&mut self, core: &Core, fault: Fault) {
        let Some(space) = core.space(fault.space) else { return };
        if !core.can_poison {
            if let Some(pid) = space.pid {
                let _ = rackmem_uapi::process::signal_thread(pid, fault.thread, libc::SIGBUS);
            }
            return;
        }
        match space.uffd.poison(fault.address).error.and_then(|error| error.raw_os_error()) {
            None => {}
            Some(libc::EAGAIN | libc::ENOMEM) => self.retries.push(fault),
            Some(_) => space.uffd.wake(fault.address, PAGE),
        }
    }

    /// Receives pages and installs them.
    fn take_pages(&mut self, mut core: MutexGuard<'a, Core>) -> MutexGuard<'a, Core> {
        let (fetches, free) = (&mut self.fetches, &mut self.free);
        let (installer, retries) = (&mut self.installer, &mut self.retries);
        let mut lost = Vec::new();
        self.port.advance(Instant::now(), &mut |event| match event {
            FarEvent::Page { tag, version, checksum, data, .. } => {
                let Some(fetch) = fetches[tag as usize].take() else { return };
                free.push(tag as u16);
                installer.arrived(&mut core, fetch, tag as u16, (version, checksum), data, retries);
            }
            FarEvent::ReadFailed { tag, error, .. } => {
                let Some(fetch) = fetches[tag as usize].take() else { return };
                free.push(tag as u16);
                install::give_up(&mut core, &fetch, tag as u16, error);
            }
            FarEvent::ServerLost { slots, reason } => lost.push((slots, reason)),
            FarEvent::Stored { .. } | FarEvent::StoreFailed { .. } => {}
        });
        self.installer.finish(&mut core, &mut self.retries);
        for (slots, reason) in lost {
            core.slots_lost(&slots, &reason);
        }
        core
    }
}

/// Puts a page of the standby list back where it was, although nobody asks for it; whether it is there.
pub(crate) fn take_back(core: &mut Core, uffd: &dyn Mapping, page: PageRef, address: u64) -> bool {
    let entry = core.table.get(page);
    let progress = uffd.copy(address, core.standby.address(entry.place));
    let code = progress.error.and_then(|error| error.raw_os_error());
    // A dead pager may have brought it home and not noted that.
    let is_there = progress.done == PAGE || code == Some(libc::EEXIST);
    if is_there {
        core.became_resident(page, entry, Admission::Found);
    }
    is_there
}
