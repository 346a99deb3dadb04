//! Elastic machines: a third more than the guest uses, changed only when it is far from that.

use rackmem_api::agent::{ElasticDecision, ResizeRequest};
use rackmem_api::{Problem, VmName};
use rackmem_types::Bytes;

use super::Brick;
use super::command::Command;
use super::plan::reachable;
use super::vm::SimVm;

/// Decisions that are kept of a machine.
const DECISIONS_KEPT: usize = 16;

/// Time from one decision to the next: a guest needs some to use what it got, and a resize that fails is not repeated
/// without end.
const PAUSE_MS: u64 = 1000;

/// Memory is changed in blocks of virtio-mem.
const BLOCK: u64 = 2 << 20;

impl Brick {
    /// The guest's programs use so much from now on, or all it has if that is less.
    pub(crate) fn guest_uses(&mut self, now: u64, name: &VmName, used: Bytes) -> Result<(), Problem> {
        self.settle(now);
        self.vm(name)?;
        if let Some(vm) = self.vms.get_mut(name).filter(|vm| vm.is_on()) {
            vm.used = used.min(vm.size());
        }
        self.settle(now);
        Ok(())
    }

    /// When a guest that needs another size will be attended to.
    pub(super) fn next_decision(&self) -> Option<u64> {
        let idle = |vm: &&SimVm| self.operations.changing_vm(&vm.name).is_none();
        let feasible =
            |vm: &&SimVm| wanted(vm).is_some_and(|to| self.check_resize(&vm.name, request(to)).is_ok());
        self.vms.values().filter(idle).filter(feasible).map(ready_ms).min()
    }

    /// Begins at most one resize that a guest needs; whether it did.
    pub(super) fn follow_needs(&mut self, now: u64) -> bool {
        let idle = |vm: &&SimVm| self.operations.changing_vm(&vm.name).is_none();
        let ready = |vm: &&SimVm| ready_ms(vm) <= now;
        let followed = self.vms.values().filter(idle).filter(ready);
        let wanting = followed.filter_map(|vm| Some((vm.name.clone(), wanted(vm)?)));
        let feasible = |(name, to): &(VmName, Bytes)| self.check_resize(name, request(*to)).is_ok();
        let Some((name, to)) = wanting.collect::<Vec<_>>().into_iter().find(feasible) else { return false };
        let Some(vm) = self.vms.get_mut(&name) else { return false };
        let (from, used) = (vm.size(), vm.used);
        let grows = to > from;
        let reason =
            format!("the guest uses {used} of {from}: {} to {to}", if grows { "grow" } else { "shrink" });
        if let Some(elastic) = &mut vm.elastic {
            elastic.decisions.push(ElasticDecision { at_ms: now, from, to, reason: reason.clone() });
            let over = elastic.decisions.len().saturating_sub(DECISIONS_KEPT);
            elastic.decisions.drain(..over);
        }
        self.happen(now, if grows { "elastic.grow" } else { "elastic.shrink" }, name.as_str(), reason);
        self.begin(now, None, "elastic", Command::Resize(name, request(to)));
        true
    }
}

/// When the next decision may be made.
fn ready_ms(vm: &SimVm) -> u64 {
    let last = vm.elastic.as_ref().and_then(|elastic| elastic.decisions.last());
    last.map_or(0, |last| last.at_ms + PAUSE_MS)
}

fn request(to: Bytes) -> ResizeRequest {
    ResizeRequest { memory: Some(to), ..ResizeRequest::default() }
}

/// The size that a machine is to have, where it is far from the one it has.
fn wanted(vm: &SimVm) -> Option<Bytes> {
    let bounds = vm.elastic.as_ref().filter(|_| vm.is_on())?.bounds;
    let (size, free) = (vm.size(), vm.size().0 - vm.used.0);
    let ideal = Bytes((vm.used.0 + vm.used.0 / 2).next_multiple_of(BLOCK)).clamp(bounds.min, bounds.max);
    let outside = size < bounds.min || size > bounds.max;
    let tight = free < size.0 / 8 && ideal > size;
    let roomy = free > size.0 / 2 && ideal < size;
    ((outside || tight || roomy) && reachable(vm, ideal) != size).then_some(ideal)
}
