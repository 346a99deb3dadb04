//! A reservation's memory goes elsewhere: what was found for it, then its pages, then the end of where it was.

use super::reserve::{Builder, Found};
use super::steps::{self, Rest};
use super::{Plan, Purpose, Step};
use crate::{Rack, RackError, Reservation, SegmentId};

/// The plan that puts what was `found` in the place of the segments `from`.
pub(super) fn relocate(
    rack: &Rack,
    reservation: &Reservation,
    found: &Found,
    from: Vec<SegmentId>,
) -> Result<Plan, RackError> {
    let grant = Builder::of(rack, reservation).grant(found)?;
    let mut steps = steps::attach(rack, &grant);
    // The virtual machine has its pages already: they move, and are not attached anew.
    steps.retain(|step| !matches!(step, Step::Attach { .. }));
    let to = grant.mappings.iter().map(|mapping| mapping.segment).collect();
    steps.push(Step::Migrate { brick: reservation.compute.clone(), from: from.clone(), to });
    let ending = steps::detach(rack, reservation, &from, Rest::With(&grant.reused));
    steps.extend(ending.into_iter().filter(|step| !matches!(step, Step::Detach { .. })));
    let (parent, purpose) = (rack.generation(), Purpose::Move);
    Ok(Plan { parent, reservation: reservation.id, purpose, grant, removed: from, steps })
}
