//! One address space under management: the target's, or that of one of its descendants.

use std::sync::Arc;

use rackmem_types::PAGE_SIZE;

use crate::kernel::{Inhabitant, Mapping};
use crate::late::Pending;
use crate::ranges::RangeSet;

/// Pages that can leave in one batch. Half a millisecond of moving; longer batches make a fork wait longer.
pub(crate) const BATCH_PAGES: usize = 128;
/// Pages of the staging area: batches go through it one after another before it is emptied by one call.
pub(crate) const STAGING_PAGES: usize = 4 * BATCH_PAGES;
/// Bytes of the staging area.
pub(crate) const STAGING_BYTES: u64 = (STAGING_PAGES * PAGE_SIZE) as u64;

/// What lives in a process besides the program, once it can be evicted from.
#[derive(Clone)]
pub(crate) struct Inside {
    pub(crate) resident: Arc<dyn Inhabitant>,
    /// The userfaultfd's number in the resident thread's descriptor table.
    pub(crate) uffd: i32,
    /// Address of the staging area, where leaving pages are moved to.
    pub(crate) staging: u64,
    /// Address of the page that tells forked children apart.
    pub(crate) badge: u64,
}

/// An address space.
pub(crate) struct Space {
    pub(crate) uffd: Arc<dyn Mapping>,
    /// The process, once it is known: a forked child's id is found out a little later.
    pub(crate) pid: Option<u32>,
    /// `None` in a forked child that nobody has entered yet: its faults are answered, but nothing leaves it.
    pub(crate) inside: Option<Inside>,
    /// Number on the badge page of a forked child.
    pub(crate) badge: u64,
    /// Address of the badge page that a forked child inherited.
    pub(crate) badge_address: u64,
    /// Registered memory of the program.
    pub(crate) regions: RangeSet,
    /// What of it has not been looked at for pages that were there before it was registered.
    pub(crate) unseen: RangeSet,
    /// The program has discarded memory, so a page that is missing may rightly read as zeros.
    pub(crate) discards: bool,
    /// Mappings have changed since the keeper looked last.
    pub(crate) changed: bool,
    /// Changes that wait for a quiet moment, see `late.rs`.
    pub(crate) pending: Pending,
}

impl Space {
    /// Whether `address` belongs to us, not to the program.
    pub(crate) fn is_ours(&self, address: u64) -> bool {
        let staging = self
            .inside
            .as_ref()
            .is_some_and(|inside| (inside.staging..inside.staging + STAGING_BYTES).contains(&address));
        staging || self.badge_address == address & !(PAGE_SIZE as u64 - 1)
    }

    /// What the kernel says about installing a page: `EEXIST` as a rule, `EAGAIN` while a message about a changed mapping is
    /// unread, `ESRCH` when the memory is gone. The page is the one with the badge, which is wiped in every forked child,
    /// so that this gives the child its number as soon as it can.
    pub(crate) fn ask(&self) -> Option<i32> {
        let mut page = [0; PAGE_SIZE];
        page[..8].copy_from_slice(&self.badge.to_ne_bytes());
        let asked = self.uffd.copy(self.badge_address, page.as_ptr() as u64);
        asked.error.and_then(|error| error.raw_os_error())
    }
}
