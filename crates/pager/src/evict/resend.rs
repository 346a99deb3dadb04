//! The evictor's first work after a take-over: what is on the standby list may not have reached its slots, so it is sent.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rackmem_types::PageHash;

use super::{Evictor, STORES_MAX, Store};
use crate::core::Core;
use crate::entry::State;
use crate::space::{BATCH_PAGES, Inside};
use crate::table::SpaceId;
use crate::transfer::Transfer;

impl<P: Transfer> Evictor<'_, P> {
    /// Goes on where a dead pager ended, of which these spaces are left.
    pub(crate) fn inherit(&mut self, spaces: &[(SpaceId, Inside)]) {
        for (id, inside) in spaces {
            self.extractor.inherit(*id, inside);
        }
        let capacity = self.shared.lock().standby.capacity();
        for first in (0..capacity).step_by(BATCH_PAGES) {
            while self.port.in_flight() > STORES_MAX && !self.shared.stop.load(Relaxed) {
                self.answers(Duration::from_millis(1));
            }
            self.reserve();
            self.resend(first..capacity.min(first + BATCH_PAGES));
        }
    }

    fn resend(&mut self, places: std::ops::Range<usize>) {
        let shared = self.shared;
        let mut core = shared.lock();
        shared.sending.store(true, Relaxed);
        self.discards_up_to = core.version_newest();
        self.stores.clear();
        for (index, place) in places.enumerate() {
            self.store_found(&mut core, index, place as u16);
        }
        self.discards.append(&mut core.discards);
        drop(core);
        self.send();
    }

    /// Stores the page at a place of the list, if there is one and its slot does not have it for certain.
    fn store_found(&mut self, core: &mut Core, index: usize, place: u16) {
        let Some(page) = core.standby.page(place) else { return };
        let mut entry = core.table.get(page);
        if entry.state != State::Standby || entry.place != place || entry.slot_valid {
            return;
        }
        core.standby.read(place, &mut self.pages[index]);
        if let Some(slot) = entry.slot.take() {
            if core.slots.owners(slot) == 1 {
                entry.slot = Some(slot);
            } else {
                core.slot_release(slot); // others rely on what it has
            }
        }
        let slot = entry.slot.or_else(|| core.slots.allocate(self.near));
        if let Some(slot) = slot {
            self.near = Some(slot);
            let (version, hash) = (core.version(), PageHash::of(&self.pages[index]));
            entry.stored(slot, version, hash);
            core.standby.send(place);
            self.stores.push(Store { index, place, slot, version, checksum: hash.checksum() });
        }
        core.table.set(page, entry);
    }
}
