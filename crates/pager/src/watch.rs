//! Watching one page: the page is taken out of the target again after every access, so that the next one shows.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rackmem_control::Access;

use crate::core::{Core, PAGE};
use crate::entry::State;
use crate::table::SpaceId;

/// Accesses kept until they are fetched: a program that hammers the page cannot fill the memory.
const ACCESSES_MAX: usize = 4096;

/// How long the page stays after an access before it is taken out again: the thread that waited must get to make its
/// access, or it would be reported, and wait, once more.
const STAY: Duration = Duration::from_millis(1);

/// A watched page.
pub(crate) struct Watched {
    space: SpaceId,
    page: u64,
    begun: Instant,
    accesses: VecDeque<Access>,
    /// Where the program touched it last, which tells a retried fault from a new access.
    last: Option<Instant>,
}

impl Watched {
    pub(crate) fn new(space: SpaceId, address: u64) -> Self {
        let page = address & !(PAGE - 1);
        Self { space, page, begun: Instant::now(), accesses: VecDeque::new(), last: None }
    }

    pub(crate) fn take(&mut self) -> Vec<Access> {
        self.accesses.drain(..).collect()
    }
}

impl Core {
    /// Notes an access, if it is to the watched page. `since` names the fault: it is noted once, however often it is
    /// taken up.
    pub(crate) fn watch_access(
        &mut self,
        space: SpaceId,
        address: u64,
        write: bool,
        thread: u32,
        since: Instant,
    ) {
        let Some(watched) = &mut self.watched else { return };
        if (watched.space, watched.page) != (space, address & !(PAGE - 1)) || watched.last == Some(since) {
            return;
        }
        watched.last = Some(since);
        if watched.accesses.len() < ACCESSES_MAX {
            let at_us = since.saturating_duration_since(watched.begun).as_micros() as u64;
            watched.accesses.push_back(Access { at_us, thread, address, write });
        }
    }

    /// The watched page, if it is in the target and must be taken out again.
    pub(crate) fn watched_page(&self) -> Option<rackmem_policy::PageRef> {
        let watched =
            self.watched.as_ref().filter(|watched| watched.last.is_none_or(|at| at.elapsed() >= STAY))?;
        let page = self.table.find(watched.space, watched.page)?;
        (self.table.get(page).state == State::Resident).then_some(page)
    }
}
