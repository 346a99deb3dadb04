//! How a simulated machine's memory is changed: balloon first when it grows, plugged memory first when it shrinks.

use rackmem_api::agent::{Mechanism, ResizePlan, ResizeRequest, ResizeStep, StepCost};
use rackmem_api::{Problem, VmName};
use rackmem_types::Bytes;

use super::Brick;
use super::vm::SimVm;

/// What a guest keeps beside what its programs use.
const GUEST_SPARE: u64 = 16 << 20;

/// What the guest can be brought to: a shrink ends where its programs begin.
pub(super) fn reachable(vm: &SimVm, size: Bytes) -> Bytes {
    if size >= vm.size() { size } else { size.max(Bytes(vm.used.0 + GUEST_SPARE)).min(vm.size()) }
}

/// The steps of a resize, with what they may cost at `gib_ms` milliseconds for each GiB.
pub(super) fn plan(vm: &SimVm, request: ResizeRequest, gib_ms: u64) -> ResizePlan {
    let (from, to) = (vm.size(), request.memory.unwrap_or(vm.size()));
    let plugged = Bytes(to.0.saturating_sub(vm.base.0));
    let ballooned = Bytes(vm.base.0.saturating_sub(to.0));
    let balloon = step(Mechanism::Balloon, vm.ballooned, ballooned, gib_ms, to < from);
    let plug = step(Mechanism::VirtioMem, vm.plugged, plugged, gib_ms, to < from);
    let limit_now = vm.local_limit.unwrap_or(vm.size());
    let limit = step(Mechanism::LocalLimit, limit_now, request.local.unwrap_or(limit_now), gib_ms, false);
    // What is taken from the guest frees memory first; what it gets needs the limit first.
    let steps = if to < from { [plug, balloon, limit] } else { [limit, balloon, plug] };
    let steps = steps.into_iter().filter(|step| step.from != step.to).collect();
    let mut warnings = Vec::new();
    if reachable(vm, to) != to {
        warnings.push(format!("the guest's programs use {}: it can give back only part", vm.used));
    }
    ResizePlan { vm: vm.name.clone(), from, to, steps, restart: false, warnings }
}

fn step(mechanism: Mechanism, from: Bytes, to: Bytes, gib_ms: u64, shrinks: bool) -> ResizeStep {
    let effect = match mechanism {
        Mechanism::Balloon if to < from => "the guest gets memory back at once",
        Mechanism::Balloon => "the guest's kernel gives up free pages and caches",
        Mechanism::VirtioMem if to > from => "the guest's kernel gets new blocks of memory",
        Mechanism::VirtioMem => "the guest's kernel moves pages out of the blocks it gives back",
        Mechanism::LocalLimit if to < from => "pages leave for the memory servers",
        Mechanism::LocalLimit | Mechanism::Dimm | Mechanism::Restart => "more pages may stay resident",
    };
    let expected_ms = to.0.abs_diff(from.0).saturating_mul(gib_ms) >> 30;
    ResizeStep {
        mechanism,
        from,
        to,
        cost: StepCost { expected_ms, may_stop_short: shrinks, effect: effect.to_owned() },
    }
}

impl Brick {
    /// What a resize would do.
    pub(crate) fn resize_plan(&self, name: &VmName, request: ResizeRequest) -> Result<ResizePlan, Problem> {
        self.check_resize(name, request)?;
        let range = &self.config.latencies.gib_ms;
        Ok(plan(self.vm(name)?, request, (range.start() + range.end()) / 2))
    }
}
