//! Puts pages that have arrived into their targets. A page that a thread waits for goes in at once; pages that were read
//! ahead go in with their neighbours by one call, which also wakes once for all of them.

use std::io;
use std::time::Instant;

use rackmem_far::PageError;
use rackmem_policy::{Admission, PageRef};
use rackmem_types::PageData;

use crate::core::{Core, PAGE};
use crate::entry::{Entry, State};
use crate::kernel::Mapping;
use crate::late;
use crate::table::SpaceId;

/// Pages that go in by one call: 128 KiB, which stay in the processor's cache from their arrival on.
const RUN_PAGES: usize = 32;

/// A fault that waits to be answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) space: SpaceId,
    /// The page.
    pub(crate) address: u64,
    /// What the program touched.
    pub(crate) exact: u64,
    pub(crate) write: bool,
    pub(crate) thread: u32,
    pub(crate) since: Instant,
    /// How often the page was found resident although the thread says it is missing.
    pub(crate) doubts: u8,
}

/// A page that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    pub(crate) page: PageRef,
    /// The first fault that waits for it; a page read ahead has none until somebody comes.
    pub(crate) waiter: Option<Fault>,
    /// Whether it was asked for because of a fault, and not ahead of one.
    pub(crate) demanded: bool,
}

/// Pages that have arrived and are not installed yet: neighbours in one space. Empty whenever the core's lock is free.
pub(crate) struct Installer {
    run: Vec<Fetch>,
    pages: Vec<PageData>,
    space: SpaceId,
    start: u64,
}

impl Installer {
    pub(crate) fn new() -> Self {
        Self { run: Vec::with_capacity(RUN_PAGES), pages: Vec::with_capacity(RUN_PAGES), space: 0, start: 0 }
    }

    /// A page has come. It is installed, if it is what was asked for and still wanted, now or by [`finish`](Self::finish).
    pub(crate) fn arrived(
        &mut self,
        core: &mut Core,
        fetch: Fetch,
        tag: u16,
        (version, checksum): (u64, u64),
        data: &PageData,
        retries: &mut Vec<Fault>,
    ) {
        if !is_current(core, &fetch, tag) {
            return; // unmapped, discarded or moved meanwhile; whoever waited was woken then
        }
        let (space, address) = core.table.place(fetch.page);
        if core.space(space).is_none_or(|space| !space.pending.is_empty()) {
            self.finish(core, retries); // before anything is moved about
            if !late::settle(core, space) {
                put_off(core, &fetch, retries);
                return;
            }
            if !is_current(core, &fetch, tag) {
                return;
            }
        }
        let entry = core.table.get(fetch.page);
        if (version, checksum) != (entry.version, entry.checksum()) {
            core.warn("a memory server answered with another version of a page than the last one".to_owned());
            core.lose(fetch.page, entry);
            return;
        }
        if fetch.demanded {
            let Some(uffd) = core.uffd(space) else { return };
            install_one(core, &*uffd, &fetch, address, data, retries);
            return;
        }
        let continues = self.space == space && self.start + self.run.len() as u64 * PAGE == address;
        if !continues || self.run.len() == RUN_PAGES {
            self.finish(core, retries);
            (self.space, self.start) = (space, address);
        }
        self.run.push(fetch);
        self.pages.push(*data);
    }

    /// Installs what has come.
    pub(crate) fn finish(&mut self, core: &mut Core, retries: &mut Vec<Fault>) {
        let Some(uffd) = core.uffd(self.space).filter(|_| !self.run.is_empty()) else {
            self.clear();
            return;
        };
        let mut at = 0;
        while at < self.run.len() {
            let address = self.start + at as u64 * PAGE;
            let rest = &self.pages[at..];
            // What stops it in the middle is found out by trying that page alone.
            let progress = uffd.copy_run(address, rest.as_ptr() as u64, rest.len());
            let done = (progress.done / PAGE) as usize;
            for fetch in &self.run[at..at + done] {
                installed(core, fetch);
            }
            at += done;
            if at < self.run.len() {
                let address = self.start + at as u64 * PAGE;
                install_one(core, &*uffd, &self.run[at], address, &self.pages[at], retries);
                at += 1;
            }
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.run.clear();
        self.pages.clear();
    }
}

/// Whether the fetch is still wanted under this name.
fn is_current(core: &Core, fetch: &Fetch, tag: u16) -> bool {
    let entry = core.table.get(fetch.page);
    entry.state == State::Fetching && entry.place == tag
}

fn install_one(
    core: &mut Core,
    uffd: &dyn Mapping,
    fetch: &Fetch,
    address: u64,
    data: &PageData,
    retries: &mut Vec<Fault>,
) {
    let progress = uffd.copy(address, data.as_ptr() as u64);
    let is_there = || progress.error.as_ref().and_then(io::Error::raw_os_error) == Some(libc::EEXIST);
    if progress.done == PAGE {
        installed(core, fetch);
    } else if is_there() {
        uffd.wake(address, PAGE);
        installed(core, fetch);
    } else {
        put_off(core, fetch, retries);
    }
}

fn installed(core: &mut Core, fetch: &Fetch) {
    let how = if fetch.waiter.is_some() { Admission::Fetched } else { Admission::Prefetched };
    let entry = core.table.get(fetch.page);
    core.became_resident(fetch.page, entry, how);
    if let Some(fault) = fetch.waiter {
        core.counters.fetched += 1;
        core.counters.far_faults += 1;
        core.waited(fault.since, true);
    }
}

/// The mappings are changing. The page is far again; whoever waits for it is served anew.
fn put_off(core: &mut Core, fetch: &Fetch, retries: &mut Vec<Fault>) {
    let entry = Entry { state: State::Far, ..core.table.get(fetch.page) };
    core.table.set(fetch.page, entry);
    retries.extend(fetch.waiter);
}

/// A page cannot be had.
pub(crate) fn give_up(core: &mut Core, fetch: &Fetch, tag: u16, error: PageError) {
    if !is_current(core, fetch, tag) {
        return;
    }
    let entry = core.table.get(fetch.page);
    let (_, address) = core.table.place(fetch.page);
    core.warn(format!("page {address:#x} is lost: {error}"));
    core.lose(fetch.page, entry);
}
