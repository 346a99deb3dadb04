//! What has to be done so that a running VM has another amount of memory, and what each part of it may cost.
//!
//! Pure: it looks at numbers and answers with steps, or with the reason why not. It never speaks to a guest, and it
//! never plans anything that needs a restart unless the caller consents to one.
//!
//! A guest's memory is `base + plugged − ballooned`. Growing deflates the balloon first, because that memory is the
//! guest's already and comes back at once; then it plugs. Shrinking unplugs first, because unplugged memory is gone from
//! the guest's books for good; the balloon takes what is below the base.

mod step;
#[cfg(test)]
mod tests;

pub use step::{Cost, Step};

use rackmem_api::agent::RUNNING_MIN;
use rackmem_types::Bytes;

/// What a guest keeps beyond what it says it uses: its kernel's reserves (`min_free_kbytes`, per-CPU lists) and what it
/// allocates while it shrinks. Below this, Linux guests with 256 MiB begin to kill.
pub const GUEST_RESERVE: Bytes = Bytes(48 << 20);

/// The balloon moves in whole mebibytes: finer steps are noise beside what a guest allocates meanwhile.
pub const BALLOON_UNIT: Bytes = Bytes(1 << 20);

/// A VM's memory as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryState {
    /// What it was started with.
    pub base: Bytes,
    /// Its device for more.
    pub hotplug: Option<Hotplug>,
    /// How much the balloon holds; `None` where there is no balloon.
    pub ballooned: Option<Bytes>,
    /// What the guest says it cannot do without; `None` where its driver says nothing.
    pub guest_used: Option<Bytes>,
}

/// A virtio-mem device, or a row of DIMMs of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hotplug {
    /// What the guest has of it.
    pub plugged: Bytes,
    /// What the guest was last asked to have of it.
    pub requested: Bytes,
    /// All there is of it.
    pub capacity: Bytes,
    /// Its granularity.
    pub block: Bytes,
}

/// What there is to grow into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Far memory that the memory servers can still give; `None` for a VM whose memory is all local.
    pub far_free: Option<Bytes>,
    /// RAM of this machine that is free, for a VM whose memory is all local.
    pub host_free: Bytes,
    /// Whether a restart of the guest is consented to.
    pub restart: bool,
}

/// The steps to another size, in the order in which they are done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The size now.
    pub from: Bytes,
    /// The size that will be, if the guest gives all it is asked for: the wanted one, rounded up to what the devices can do.
    pub to: Bytes,
    /// What is done, first to last. Empty if nothing has to be done.
    pub steps: Vec<Step>,
}

/// Why a size cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More than the VM was made for.
    #[error(
        "the VM can grow to {maximum} and {wanted} is more: take up to {maximum}, or consent to a restart (--allow-restart), which gives it a larger maximum"
    )]
    AboveMaximum {
        /// What was asked for.
        wanted: Bytes,
        /// What can be had.
        maximum: Bytes,
    },
    /// Less than the guest needs to live.
    #[error(
        "the guest uses {used} and needs {least} to go on; {wanted} is less: free memory inside the guest first"
    )]
    BelowUse {
        /// What was asked for.
        wanted: Bytes,
        /// What the guest uses.
        used: Bytes,
        /// The smallest size it can go on with.
        least: Bytes,
    },
    /// No machine runs in so little.
    #[error("a VM needs at least {least}; {wanted} is less")]
    TooSmall {
        /// What was asked for.
        wanted: Bytes,
        /// The smallest size.
        least: Bytes,
    },
    /// The rack has less than this takes.
    #[error(
        "this takes {needed} more far memory and the memory servers have {free} left: take less, or add a memory server"
    )]
    FarFull {
        /// What it takes.
        needed: Bytes,
        /// What there is.
        free: Bytes,
    },
    /// This machine has less than this takes.
    #[error(
        "this takes {needed} more of this machine's RAM and {free} are free: take less, or give the VM far memory"
    )]
    HostFull {
        /// What it takes.
        needed: Bytes,
        /// What there is.
        free: Bytes,
    },
    /// The VM has no device that could do it.
    #[error(
        "the VM has no memory device that can shrink it: it was started with neither a balloon nor virtio-mem"
    )]
    NoDevice,
}

impl MemoryState {
    /// What the guest has now.
    pub fn size(&self) -> Bytes {
        let plugged = self.hotplug.map_or(0, |hotplug| hotplug.plugged.0);
        Bytes((self.base.0 + plugged).saturating_sub(self.ballooned.unwrap_or_default().0))
    }

    /// The most it can have without a restart.
    pub fn maximum(&self) -> Bytes {
        Bytes(self.base.0 + self.hotplug.map_or(0, |hotplug| hotplug.capacity.0))
    }

    /// The least it can have with what it uses now.
    pub fn minimum(&self) -> Bytes {
        let used = self.guest_used.map_or(0, |used| used.0 + GUEST_RESERVE.0);
        Bytes(round_up(used.max(RUNNING_MIN.0), BALLOON_UNIT))
    }
}

/// The steps from `state` to `wanted`.
pub fn plan(state: &MemoryState, wanted: Bytes, room: Room) -> Result<Plan, Refusal> {
    let from = state.size();
    if wanted < RUNNING_MIN {
        return Err(Refusal::TooSmall { wanted, least: RUNNING_MIN });
    }
    if wanted > state.maximum() {
        return above_maximum(state, wanted, room);
    }
    if wanted >= from { grow(state, wanted, room) } else { shrink(state, wanted) }
}

fn above_maximum(state: &MemoryState, wanted: Bytes, room: Room) -> Result<Plan, Refusal> {
    if !room.restart {
        return Err(Refusal::AboveMaximum { wanted, maximum: state.maximum() });
    }
    let to = Bytes(round_up(wanted.0, state.hotplug.map_or(BALLOON_UNIT, |hotplug| hotplug.block)));
    check_room(Bytes(to.0 - state.size().0), room)?;
    Ok(Plan { from: state.size(), to, steps: vec![Step::Restart { memory: to }] })
}

fn grow(state: &MemoryState, wanted: Bytes, room: Room) -> Result<Plan, Refusal> {
    let from = state.size();
    let mut missing = wanted.0 - from.0;
    let mut steps = Vec::new();
    let ballooned = state.ballooned.unwrap_or_default().0;
    let deflate = missing.min(ballooned);
    if deflate > 0 {
        steps.push(Step::Deflate { from: Bytes(ballooned), to: Bytes(ballooned - deflate) });
        missing -= deflate;
    }
    let mut plugged = 0;
    if let Some(hotplug) = state.hotplug {
        plugged = round_up(missing, hotplug.block).min(hotplug.capacity.0 - hotplug.plugged.0);
        // A request that the guest has not met yet is taken back even where no more is wanted than there is.
        if plugged > 0 || hotplug.requested != hotplug.plugged {
            let to = Bytes(hotplug.plugged.0 + plugged);
            steps.push(Step::Plug { from: hotplug.plugged, to });
        }
    }
    check_room(Bytes(deflate + plugged), room)?;
    Ok(Plan { from, to: Bytes(from.0 + deflate + plugged), steps })
}

fn shrink(state: &MemoryState, wanted: Bytes) -> Result<Plan, Refusal> {
    let from = state.size();
    if let Some(used) = state.guest_used
        && wanted < state.minimum()
    {
        return Err(Refusal::BelowUse { wanted, used, least: state.minimum() });
    }
    let mut excess = from.0 - wanted.0;
    let mut steps = Vec::new();
    if let Some(hotplug) = state.hotplug {
        let unplug = round_down(excess.min(hotplug.plugged.0), hotplug.block);
        if unplug > 0 {
            steps.push(Step::Unplug { from: hotplug.plugged, to: Bytes(hotplug.plugged.0 - unplug) });
            excess -= unplug;
        }
    }
    let inflate = round_down(excess, BALLOON_UNIT);
    match state.ballooned {
        Some(ballooned) if inflate > 0 => {
            steps.push(Step::Inflate { from: ballooned, to: Bytes(ballooned.0 + inflate) });
            excess -= inflate;
        }
        None if steps.is_empty() => return Err(Refusal::NoDevice),
        _ => {}
    }
    Ok(Plan { from, to: Bytes(wanted.0 + excess), steps })
}

fn check_room(needed: Bytes, room: Room) -> Result<(), Refusal> {
    match room.far_free {
        Some(free) if needed > free => Err(Refusal::FarFull { needed, free }),
        None if needed > room.host_free => Err(Refusal::HostFull { needed, free: room.host_free }),
        _ => Ok(()),
    }
}

fn round_up(amount: u64, unit: Bytes) -> u64 {
    amount.next_multiple_of(unit.0)
}

fn round_down(amount: u64, unit: Bytes) -> u64 {
    amount - amount % unit.0
}
