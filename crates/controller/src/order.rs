//! Orders: a step with all that has to be known for it, as it is known at this moment.

use std::collections::BTreeMap;

use rackmem_api::{Generation, LatencyClass};
use rackmem_rack::{Name, Rack, SegmentId, Step};

use crate::deed::Deed;
use crate::ledger::State;

/// A step that is to be done, with all that has to be known for it.
#[derive(Clone, Debug)]
pub struct Order {
    /// The step.
    pub step: Step,
    /// The controller's reign: agents and switches refuse older ones.
    pub reign: Generation,
    /// How far away the memory of the reservation may be.
    pub class: LatencyClass,
    /// The addresses of the bricks and switches that the step names.
    pub addresses: BTreeMap<Name, String>,
    /// The deeds of the segments that the step makes, removes or enters into a brick's table.
    pub deeds: BTreeMap<SegmentId, Deed>,
    /// Where the segment that it enters into a brick's table lies in memory that several bricks share: its name, and a page there.
    pub shared: Option<(Name, u64)>,
}

impl Order {
    pub(crate) fn new(state: &State, reign: Generation, class: LatencyClass, step: Step) -> Self {
        let (asked, other) = named(&step);
        let names = std::iter::once(asked).chain(other);
        let addresses = names.filter_map(|name| Some((name.clone(), address(&state.rack, name)?))).collect();
        let deed = |segment: &SegmentId| Some((*segment, state.deeds.get(segment)?.clone()));
        let deeds = segment(&step).and_then(deed).into_iter().collect();
        let shared = match &step {
            Step::NetPortAdd { segment, .. } => state.rack.place_in_group(*segment),
            _ => None,
        };
        Self { step, reign, class, addresses, deeds, shared }
    }

    /// The brick or switch that is asked to do it.
    pub(crate) fn asked(&self) -> &Name {
        named(&self.step).0
    }
}

/// The bricks and switches that a step names: first who is asked to do it.
fn named(step: &Step) -> (&Name, Option<&Name>) {
    match step {
        Step::PowerOn { brick }
        | Step::PowerOff { brick }
        | Step::SegmentCreate { brick, .. }
        | Step::SegmentRemove { brick, .. }
        | Step::Attach { brick, .. }
        | Step::Detach { brick, .. }
        | Step::Migrate { brick, .. } => (brick, None),
        Step::Connect { switch, .. } | Step::Disconnect { switch, .. } => (switch, None),
        Step::NetPortAdd { brick, server, .. } | Step::NetPortRemove { brick, server, .. } => {
            (brick, Some(server))
        }
        Step::AcceleratorBind { brick, accelerator, .. }
        | Step::AcceleratorUnbind { brick, accelerator, .. } => (brick, Some(accelerator)),
    }
}

/// The one segment whose deed a step needs.
fn segment(step: &Step) -> Option<&SegmentId> {
    match step {
        Step::SegmentCreate { segment, .. }
        | Step::SegmentRemove { segment, .. }
        | Step::NetPortAdd { segment, .. } => Some(segment),
        _ => None,
    }
}

/// Where a brick or switch is reached.
pub(crate) fn address(rack: &Rack, name: &Name) -> Option<String> {
    let of_switch = || rack.switch(name).ok().and_then(|switch| switch.spec().address.clone());
    rack.brick(name).ok().and_then(|brick| brick.spec().address.clone()).or_else(of_switch)
}
