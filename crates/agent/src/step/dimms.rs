//! Growth by DIMMs, for machines without virtio-mem: as many of one size as are wanted. A DIMM comes and goes as a whole, and
//! whether it goes is for the guest to say.

use rackmem_api::Problem;
use rackmem_qemu::Machine;
use rackmem_qemu::command_line::FAR_NODE;
use rackmem_qemu::memory::{MemoryState, Observed, Unplug, observe};
use rackmem_types::Bytes;
use tokio::time::{Instant, sleep};

use super::Note;
use super::memory::{LOOK_EVERY, STALL, state};
use crate::problem::from_qemu;
use crate::vm::{Dimms, VmRecord};

/// Ids of DIMMs begin with this, and end with the number of the slot.
const PREFIX: &str = "dimm";

/// Plugs or asks for DIMMs until there are so many bytes of them; waits for nothing.
pub(super) async fn request(machine: &dyn Machine, vm: &VmRecord, to: Bytes) -> Result<(), Problem> {
    let now = state(machine).await?;
    if to >= now.in_dimms() {
        return add(machine, vm, &now, to).await;
    }
    let wanted = count(now.in_dimms().0 - to.0, Dimms::of(&vm.spec).unit);
    for id in ids(machine, &now).into_iter().rev().take(wanted) {
        machine.dimm_unplug(&id).await.map_err(|error| from_qemu(&error))?;
    }
    Ok(())
}

/// Plugs DIMMs, and waits until the guest says that it has more.
pub(super) async fn plug(machine: &dyn Machine, vm: &VmRecord, to: Bytes) -> Result<Note, Problem> {
    let before = state(machine).await?;
    let total = total(machine).await?;
    add(machine, vm, &before, to).await?;
    let more = to.0.saturating_sub(before.in_dimms().0);
    // Its kernel keeps a part of what is added for its own records. A guest that says nothing is not waited for.
    let Some(expected) = total.map(|total| total.0 + more / 2).filter(|_| more > 0) else { return Ok(None) };
    let begin = Instant::now();
    while self::total(machine).await?.is_some_and(|total| total.0 < expected) {
        if begin.elapsed() > STALL {
            return Ok(Some(
                "the guest does not say that it uses the new DIMMs: it may be booting, or leave them off line (/sys/devices/system/memory)"
                    .to_owned(),
            ));
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(None)
}

/// Asks for DIMMs, one after the other, until enough are gone or each has been asked for.
pub(super) async fn unplug(machine: &dyn Machine, to: Bytes) -> Result<Note, Problem> {
    let before = state(machine).await?;
    let mut now = before.clone();
    for id in ids(machine, &before).into_iter().rev() {
        if now.in_dimms() <= to {
            break;
        }
        machine.dimm_unplug(&id).await.map_err(|error| from_qemu(&error))?;
        let gone = |state: &MemoryState| state.dimm_of(&id).is_none();
        let seen = observe(machine, STALL, gone).await.map_err(|error| from_qemu(&error))?;
        now = match seen {
            Observed::Reached(state) => {
                // What it stood on is still there.
                let freed = machine.dimm_unplug(&id).await.map_err(|error| from_qemu(&error))?;
                debug_assert_eq!(freed, Unplug::Gone);
                state
            }
            Observed::Stalled(state) | Observed::Refused(state, _) => state,
        };
    }
    let (wanted, gave) =
        (before.in_dimms().0 - to.0.min(before.in_dimms().0), before.in_dimms().0 - now.in_dimms().0);
    Ok((gave < wanted).then(|| {
        format!("the guest gave back {} of {}: it uses a part of each other DIMM", Bytes(gave), Bytes(wanted))
    }))
}

async fn add(machine: &dyn Machine, vm: &VmRecord, now: &MemoryState, to: Bytes) -> Result<(), Problem> {
    let Dimms { unit, slots } = Dimms::of(&vm.spec);
    let node = vm.spec.far_node.map(|_| FAR_NODE);
    let missing = count(to.0.saturating_sub(now.in_dimms().0), unit);
    let name = |slot| machine.driver().device_id(&format!("{PREFIX}{slot}"));
    let free = (0..slots).map(name).filter(|id| now.dimm_of(id).is_none());
    for id in free.take(missing) {
        machine.dimm_plug(&id, unit, node).await.map_err(|error| from_qemu(&error))?;
    }
    Ok(())
}

/// Those that were plugged here, the first one first.
fn ids(machine: &dyn Machine, state: &MemoryState) -> Vec<String> {
    let prefix = machine.driver().device_id(PREFIX);
    let number = |id: &str| id.strip_prefix(prefix.as_str())?.parse::<u32>().ok();
    let mut ids: Vec<_> = state
        .dimms
        .iter()
        .filter_map(|dimm| dimm.id.clone())
        .filter_map(|id| Some((number(&id)?, id)))
        .collect();
    ids.sort_unstable();
    ids.into_iter().map(|(_, id)| id).collect()
}

fn count(bytes: u64, unit: Bytes) -> usize {
    usize::try_from(bytes.div_ceil(unit.0)).unwrap_or(usize::MAX)
}

async fn total(machine: &dyn Machine) -> Result<Option<Bytes>, Problem> {
    Ok(machine.guest_memory().await.map_err(|error| from_qemu(&error))?.and_then(|guest| guest.total))
}
