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
    /// The deeds of the segments that the step makes, removes or enters into the table of the brick that writes to them.
    pub deeds: BTreeMap<SegmentId, Deed>,
}

impl Order {
    pub(crate) fn new(state: &State, reign: Generation, class: LatencyClass, step: Step) -> Self {
        let names = named(&step).into_iter();
        let addresses = names.filter_map(|name| Some((name.clone(), address(&state.rack, name)?))).collect();
        let deed = |segment: &SegmentId| Some((*segment, state.deeds.get(segment)?.clone()));
        let deeds = segment(&state.rack, &step).and_then(deed).into_iter().collect();
        Self { step, reign, class, addresses, deeds }
    }
}

fn named(step: &Step) -> Vec<&Name> {
    match step {
        Step::PowerOn { brick }
        | Step::PowerOff { brick }
        | Step::SegmentCreate { brick, .. }
        | Step::SegmentRemove { brick, .. }
        | Step::Attach { brick, .. }
        | Step::Detach { brick, .. }
        | Step::Migrate { brick, .. } => vec![brick],
        Step::Connect { switch, .. } | Step::Disconnect { switch, .. } => vec![switch],
        Step::NetPortAdd { brick, server, .. } | Step::NetPortRemove { brick, server, .. } => {
            vec![brick, server]
        }
        Step::AcceleratorBind { brick, accelerator, .. }
        | Step::AcceleratorUnbind { brick, accelerator, .. } => vec![brick, accelerator],
    }
}

/// The one segment whose deed a step needs. Of several bricks that share a segment, only that one is given what opens it for whose
/// reservation it was made: pagers empty what they are given, and two of them would empty each other's pages.
fn segment<'a>(rack: &Rack, step: &'a Step) -> Option<&'a SegmentId> {
    match step {
        Step::SegmentCreate { segment, .. } | Step::SegmentRemove { segment, .. } => Some(segment),
        Step::NetPortAdd { brick, segment, .. } => {
            let maker = rack.reservation(segment.reservation()).ok()?;
            (maker.compute == *brick).then_some(segment)
        }
        _ => None,
    }
}

/// Where a brick or switch is reached.
pub(crate) fn address(rack: &Rack, name: &Name) -> Option<String> {
    let of_switch = || rack.switch(name).ok().and_then(|switch| switch.spec().address.clone());
    rack.brick(name).ok().and_then(|brick| brick.spec().address.clone()).or_else(of_switch)
}
