//! What must be so whenever nobody holds the core's lock.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd};

use rackmem_policy::PageRef;

use super::kernel::There;
use super::world::World;
use crate::core::{Core, PAGE};
use crate::entry::State;
use crate::table::CHUNK_PAGES;

/// Recounts everything, and compares the page table with what lies in the simulated memory.
pub(super) fn check(core: &Core, world: &World) {
    let kernel = world.kernel();
    let (mut resident, mut far, mut lost) = (0, 0, 0);
    let mut places = HashSet::new();
    let mut owners: HashMap<u32, u32> = HashMap::new();
    for (id, space) in core.spaces() {
        let memory = &kernel.memories[kernel.by_fd[&space.uffd.as_fd().as_raw_fd()]];
        let settled = memory.alive
            && memory.changing == 0
            && memory.removing.is_empty()
            && core.hold == 0
            && core.dropping.is_none()
            && space.pending.is_empty();
        for chunk in core.table.chunks_in(id, 0, u64::MAX) {
            let first = core.table.find(id, chunk).unwrap();
            for i in 0..CHUNK_PAGES {
                let page = PageRef(first.0 + i);
                let entry = core.table.get(page);
                let address = chunk + u64::from(i) * PAGE;
                if let Some(slot) = entry.slot {
                    *owners.entry(slot.0).or_default() += 1;
                }
                match entry.state {
                    State::Empty => assert_eq!(entry.slot, None, "an empty page with a slot"),
                    State::Resident | State::Leaving => resident += 1,
                    State::Far | State::Fetching => {
                        far += 1;
                        assert!(
                            entry.slot.is_some() && entry.slot_valid,
                            "{address:#x} is nowhere: {entry:?}"
                        );
                    }
                    State::Standby => {
                        places.insert(entry.place);
                    }
                    State::Lost => lost += 1,
                }
                if entry.state == State::Leaving {
                    assert_eq!(core.batch, Some(id), "a page leaves without a batch");
                }
                if !settled {
                    continue;
                }
                let there = memory.pages.get(&address).map(|page| page.there);
                match entry.state {
                    State::Far | State::Fetching | State::Standby => {
                        assert_eq!(
                            there,
                            Some(There::Missing),
                            "{address:#x} of {id} is here and there: {entry:?}"
                        );
                    }
                    State::Resident => assert!(
                        matches!(there, Some(There::Present { .. })) || entry.discarded,
                        "{address:#x} of {id} should be there: {there:?}, {entry:?}"
                    ),
                    State::Empty | State::Leaving | State::Lost => {}
                }
            }
        }
    }
    assert_eq!((resident, far, lost), (core.resident, core.far, core.lost), "resident, far, lost");
    assert_eq!(places.len(), core.standby.live(), "pages on the standby list");
    assert_eq!(owners.len() as u32, core.slots.used(), "slots in use");
    for (slot, count) in owners {
        assert_eq!(core.slots.owners(rackmem_types::Slot(slot)), count, "owners of slot {slot}");
    }
}

/// What must be so at the end, when the keeper has looked once more and nothing changes: of memory that is managed nothing is
/// there that the pager does not know of. It would never fault, so never be known, and count towards no limit.
pub(super) fn check_known(core: &Core, world: &World) {
    let kernel = world.kernel();
    for (id, space) in core.spaces() {
        let memory = &kernel.memories[kernel.by_fd[&space.uffd.as_fd().as_raw_fd()]];
        if !memory.alive || memory.changing > 0 || space.inside.is_none() || !space.pending.is_empty() {
            continue;
        }
        for (&address, page) in &memory.pages {
            if !matches!(page.there, There::Present { .. }) || space.regions.containing(address).is_none() {
                continue;
            }
            let state = core.table.find(id, address).map(|page| core.table.get(page).state);
            assert!(
                !matches!(state, None | Some(State::Empty)),
                "{address:#x} of {id} is there, and nobody knows: {state:?}"
            );
        }
    }
}

/// Who waits for what.
pub(super) fn waiters(core: &Core, world: &World) -> String {
    let kernel = world.kernel();
    let mut text = format!(
        "local {} of {}, ceiling {}, standby {} room {}, batch {:?}, hold {}, full {}, stuck {}, free slots {}",
        core.local(),
        core.limit,
        core.ceiling,
        core.standby.live(),
        core.standby.room(),
        core.batch,
        core.hold,
        core.far_full,
        core.stuck,
        core.slots.free()
    );
    for (id, space) in core.spaces() {
        let memory = &kernel.memories[kernel.by_fd[&space.uffd.as_fd().as_raw_fd()]];
        text += &format!("\nspace {id}: {:?}, changing {}", memory.changes, memory.changing);
        for waiter in &memory.waiters {
            let entry = core.table.find(id, waiter.address).map(|page| core.table.get(page));
            text += &format!("\n{waiter:x?}, {:?}, {entry:?}", memory.pages.get(&waiter.address));
        }
    }
    text
}
