//! Steps of a resize: a device is asked, and the guest is waited for as long as it moves.

use std::time::Duration;

use rackmem_api::Problem;
use rackmem_api::agent::RUNNING_MIN;
use rackmem_api::problem::ProblemType;
use rackmem_qemu::Machine;
use rackmem_qemu::command_line::{BALLOON_ID, VIRTIO_MEM_ID};
use rackmem_qemu::memory::{MemoryState, Observed, VirtioMem, observe};
use rackmem_types::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::life::change;
use super::{Note, dimms};
use crate::ground::Ground;
use crate::problem::from_qemu;
use crate::resize::{BALLOON_UNIT, Step};
use crate::vm::{Dimms, VmRecord};

/// A guest onlines and offlines a block in milliseconds; under emulation, with both processors busy, in a second or two.
pub(super) const STALL: Duration = Duration::from_secs(10);

/// Before it moves at all, a guest may have to finish something else with its memory, which takes longer.
const FIRST_MOVE: Duration = Duration::from_secs(40);

/// A guest that is booting gets this long to load a driver.
const DRIVER: Duration = Duration::from_secs(20);

/// Between two looks at whether it has.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn take(ground: &Ground, vm: &VmRecord, step: Step) -> Result<Note, Problem> {
    let (machine, _) = ground.machines.running(vm).await?;
    let machine = machine.as_ref();
    match step {
        Step::Deflate { to, .. } | Step::Inflate { to, .. } => balloon(machine, to).await,
        Step::Plug { to, .. } if by_dimms(machine).await? => dimms::plug(machine, vm, to).await,
        Step::Unplug { to, .. } if by_dimms(machine).await? => dimms::unplug(machine, to).await,
        Step::Plug { to, .. } => plug(machine, to).await,
        Step::Unplug { to, .. } => unplug(machine, to).await,
        Step::Restart { .. } => Err(crate::problem::invalid("a restart is made of other steps")),
    }
}

/// Asks a machine that is about to start for the size that its guest had when it ended.
pub(super) async fn prepare(machine: &dyn Machine, vm: &VmRecord) -> Result<(), Problem> {
    let (base, target) = (vm.spec.memory, vm.target);
    let now = state(machine).await?;
    if let Some(device) = now.virtio_mem_of(&growing(machine)) {
        let above = target.0.saturating_sub(base.0);
        request(machine, Bytes((above - above % device.block.0).min(device.max.0))).await?;
    } else if target > base {
        let dimms = Dimms::of(&vm.spec);
        let above = target.0 - base.0;
        let plugged = (above - above % dimms.unit.0).min(dimms.capacity().0);
        dimms::request(machine, vm, Bytes(plugged)).await?;
    }
    if target < base && now.balloon.is_some() {
        machine.balloon_to(target).await.map_err(|error| from_qemu(&error))?;
    }
    Ok(())
}

/// Asks for what was before; what the guest does about it in its own time is not waited for.
pub(super) async fn undo(ground: &Ground, vm: &VmRecord, step: Step) -> Result<Note, Problem> {
    let Some((machine, _)) = ground.machines.find(vm).await? else { return Ok(None) };
    let asked = match step {
        Step::Deflate { from, .. } | Step::Inflate { from, .. } => {
            let state = state(machine.as_ref()).await?;
            machine.balloon_to(left_by(&state, from)).await
        }
        Step::Plug { from, .. } | Step::Unplug { from, .. } if by_dimms(machine.as_ref()).await? => {
            return dimms::request(machine.as_ref(), vm, from).await.map(|()| None);
        }
        Step::Plug { from, .. } | Step::Unplug { from, .. } => {
            machine.virtio_mem_request(&growing(machine.as_ref()), from).await
        }
        Step::Restart { .. } => Ok(()),
    };
    asked.map_err(|error| from_qemu(&error))?;
    Ok(None)
}

/// Notes what was asked for. Where the guest kept memory that it was asked to unplug, the balloon asks for it.
pub(super) async fn settle(ground: &Ground, vm: &VmRecord, wanted: Bytes) -> Result<Note, Problem> {
    change(ground, vm, |record| record.target = wanted).await?;
    let (machine, _) = ground.machines.running(vm).await?;
    let machine = machine.as_ref();
    let mut now = state(machine).await?;
    let excess = now.usable().0.saturating_sub(wanted.0);
    if now.balloon.is_some() && excess > BALLOON_UNIT.0 && vm.target > wanted {
        let more = excess - excess % BALLOON_UNIT.0;
        // The balloon only takes boot memory, and some of that the guest's kernel needs whatever was plugged.
        let most = (now.boot.0 + now.in_dimms().0).saturating_sub(RUNNING_MIN.0);
        balloon(machine, Bytes((now.ballooned().0 + more).min(most).max(now.ballooned().0))).await?;
        now = state(machine).await?;
    }
    let size = now.usable();
    let blocks =
        now.virtio_mem.iter().map(|device| device.block.0).chain(now.dimms.iter().map(|dimm| dimm.size.0));
    let tolerance = blocks.max().unwrap_or(0).max(BALLOON_UNIT.0);
    Ok((size.0 > wanted.0 + tolerance || wanted.0 > size.0 + tolerance)
        .then(|| format!("the guest has {size}, not {wanted}: it could not give or take the rest")))
}

pub(super) async fn unsettle(ground: &Ground, vm: &VmRecord, before: Bytes) -> Result<Note, Problem> {
    change(ground, vm, |record| record.target = before).await
}

async fn balloon(machine: &dyn Machine, held: Bytes) -> Result<Note, Problem> {
    let before = state(machine).await?;
    await_driver(machine, &machine.driver().device_id(BALLOON_ID), "virtio_balloon").await?;
    let wanted = left_by(&before, held);
    machine.balloon_to(wanted).await.map_err(|error| from_qemu(&error))?;
    let start = before.balloon;
    let reached =
        |state: &MemoryState| state.balloon.is_some_and(|left| left.0.abs_diff(wanted.0) < BALLOON_UNIT.0);
    match follow(machine, move |state| state.balloon != start, reached).await? {
        Followed::Reached => Ok(None),
        Followed::Stalled(state) => {
            // It would go on trying, and so take by surprise what the guest has come to need.
            machine
                .balloon_to(left_by(&state, state.ballooned()))
                .await
                .map_err(|error| from_qemu(&error))?;
            let got = state.ballooned();
            Ok(Some(format!("the balloon holds {got}, not {held}: the guest needs the rest")))
        }
    }
}

async fn plug(machine: &dyn Machine, to: Bytes) -> Result<Note, Problem> {
    let id = growing(machine);
    await_driver(machine, &id, "virtio_mem").await?;
    let before = device(&state(machine).await?, &id)?.plugged;
    let plugged = |state: &MemoryState| device(state, &id).ok().map(|device| device.plugged);
    request(machine, to).await?;
    match follow(machine, |state| plugged(state) != Some(before), |state| plugged(state) == Some(to)).await? {
        Followed::Reached => Ok(None),
        Followed::Stalled(state) if plugged(&state) == Some(before) && before != to => {
            request(machine, before).await?;
            let detail = format!(
                "the guest has plugged nothing within {} s: it is stuck, or out of memory for what plugging takes",
                FIRST_MOVE.as_secs()
            );
            Err(Problem::new(ProblemType::Backend, detail))
        }
        Followed::Stalled(state) => {
            let got = plugged(&state).unwrap_or_default();
            Ok(Some(format!("the guest plugged {got} of {to}; it plugs the rest when it can")))
        }
    }
}

async fn unplug(machine: &dyn Machine, to: Bytes) -> Result<Note, Problem> {
    let id = growing(machine);
    let before = device(&state(machine).await?, &id)?.plugged;
    let plugged = |state: &MemoryState| device(state, &id).ok().map(|device| device.plugged);
    request(machine, to).await?;
    match follow(machine, |state| plugged(state) != Some(before), |state| plugged(state) == Some(to)).await? {
        Followed::Reached => Ok(None),
        Followed::Stalled(state) => {
            let kept = plugged(&state).unwrap_or_default();
            // The guest would go on trying, and so unplug by surprise what it has been left with.
            request(machine, kept).await?;
            Ok(Some(format!(
                "the guest gave back {} of {}",
                Bytes(before.0 - kept.0.min(before.0)),
                Bytes(before.0 - to.0.min(before.0))
            )))
        }
    }
}

enum Followed {
    Reached,
    Stalled(MemoryState),
}

/// Waits for the first move for longer than for the next ones.
async fn follow(
    machine: &dyn Machine,
    moved: impl Fn(&MemoryState) -> bool + Send + Sync,
    reached: impl Fn(&MemoryState) -> bool + Send + Sync,
) -> Result<Followed, Problem> {
    let first = observe(machine, FIRST_MOVE, |state| moved(state) || reached(state)).await;
    let observed = match first.map_err(|error| from_qemu(&error))? {
        Observed::Reached(state) if !reached(&state) => {
            observe(machine, STALL, |state| reached(state)).await.map_err(|error| from_qemu(&error))?
        }
        observed => observed,
    };
    Ok(match observed {
        Observed::Reached(_) => Followed::Reached,
        Observed::Stalled(state) | Observed::Refused(state, _) => Followed::Stalled(state),
    })
}

/// Waits until the guest's driver of a device says that it is there. Where QEMU cannot tell, the guest's moves will.
async fn await_driver(machine: &dyn Machine, id: &str, module: &str) -> Result<(), Problem> {
    let begin = Instant::now();
    while has_driver(machine, id).await == Some(false) {
        if begin.elapsed() > DRIVER {
            return Err(no_driver(id, module));
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn has_driver(machine: &dyn Machine, id: &str) -> Option<bool> {
    let path = format!("/machine/peripheral/{id}/virtio-backend");
    let told = machine.execute("x-query-virtio-status", json!({ "path": path })).await.ok()?;
    let statuses = told["status"]["statuses"].as_array()?;
    Some(
        statuses
            .iter()
            .filter_map(Value::as_str)
            .any(|status| status.starts_with("VIRTIO_CONFIG_S_DRIVER_OK")),
    )
}

/// Whether the machine grows by DIMMs: it has no virtio-mem device.
async fn by_dimms(machine: &dyn Machine) -> Result<bool, Problem> {
    Ok(state(machine).await?.virtio_mem_of(&growing(machine)).is_none())
}

pub(super) async fn state(machine: &dyn Machine) -> Result<MemoryState, Problem> {
    machine.memory().await.map_err(|error| from_qemu(&error))
}

async fn request(machine: &dyn Machine, size: Bytes) -> Result<(), Problem> {
    machine.virtio_mem_request(&growing(machine), size).await.map_err(|error| from_qemu(&error))
}

/// The id of the device by which a machine grows.
fn growing(machine: &dyn Machine) -> String {
    machine.driver().device_id(VIRTIO_MEM_ID)
}

fn device<'a>(state: &'a MemoryState, id: &str) -> Result<&'a VirtioMem, Problem> {
    state.virtio_mem_of(id).ok_or_else(|| no_driver(id, "virtio_mem"))
}

/// What a balloon that holds so much leaves.
fn left_by(state: &MemoryState, held: Bytes) -> Bytes {
    Bytes((state.boot.0 + state.in_dimms().0).saturating_sub(held.0))
}

fn no_driver(device: &str, module: &str) -> Problem {
    let detail = format!(
        "the guest does not serve its device {device}: it is still booting, or its kernel lacks the driver {module} ('modprobe {module}' in the guest)"
    );
    Problem::new(ProblemType::Backend, detail)
}
