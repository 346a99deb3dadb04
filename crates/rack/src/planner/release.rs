//! Plans that give back, and the steps that undo a plan half way.

use rackmem_types::Bytes;

use super::steps::{self, Rest};
use super::{Grant, Plan, Purpose, Step};
use crate::reservation::pages_of;
use crate::{Name, Rack, RackError, Reservation, ReservationId, SegmentId, State};

/// Plans the end of a reservation. A group's memory goes with the last who leaves it.
pub fn release(rack: &Rack, id: ReservationId) -> Result<Plan, RackError> {
    let reservation = rack.reservation(id)?;
    let all: Vec<_> = reservation.mappings.iter().map(|mapping| mapping.segment).collect();
    let steps = match (reservation.state, &reservation.pending) {
        // Nothing was carried out yet, but it may be the last user of a circuit that another has set.
        (State::Reserved, _) => steps::disconnect(steps::idle_paths(rack, reservation, &[])),
        (State::Applied, None) => steps::detach(rack, reservation, &all, Rest::Nothing),
        (State::Applied, Some(_)) => {
            return Err(RackError::State {
                id,
                is: State::Applied,
                needs: "wait for the plan that is under way",
            });
        }
        (is, _) => return Err(RackError::State { id, is, needs: "cancel its operation, or wait for it" }),
    };
    let grant = Grant::empty(reservation.compute.clone());
    Ok(Plan {
        parent: rack.generation(),
        reservation: id,
        purpose: Purpose::Release,
        grant,
        removed: all,
        steps,
    })
}

/// Plans to give back up to `less` of a reservation's memory: segments that are lost, and then those that came last, whole ones
/// only. The plan says what really goes; it is refused if no whole segment fits in `less`.
pub fn shrink(rack: &Rack, id: ReservationId, less: Bytes) -> Result<Plan, RackError> {
    let reservation = super::applied(rack, id)?;
    if reservation.group.is_some() {
        return Err(RackError::Request("shared memory does not shrink; leave the group".to_owned()));
    }
    let mut left = pages_of(less);
    let mut newest: Vec<_> = reservation.mappings.iter().collect();
    newest.sort_unstable_by_key(|mapping| (!mapping.lost, std::cmp::Reverse(mapping.segment)));
    let mut removed = Vec::new();
    for mapping in newest {
        if mapping.pages <= left {
            left -= mapping.pages;
            removed.push(mapping.segment);
        }
    }
    if removed.is_empty() {
        let sizes = reservation.mappings.iter().map(|mapping| Bytes::from_pages(mapping.pages).to_string());
        let sizes = sizes.collect::<Vec<_>>().join(", ");
        let problem =
            format!("memory is given back by whole segments, and those of reservation {id} have {sizes}");
        return Err(RackError::Request(problem));
    }
    let steps = steps::detach(rack, reservation, &removed, Rest::With(&[]));
    let grant = Grant::empty(reservation.compute.clone());
    Ok(Plan { parent: rack.generation(), reservation: id, purpose: Purpose::Shrink, grant, removed, steps })
}

impl Plan {
    /// How many steps may have been begun so that the plan can still be undone; from then on it is carried through.
    pub fn undoable_until(&self) -> usize {
        match self.purpose {
            Purpose::Reserve(_) | Purpose::Grow => self.steps.len(),
            // What comes behind it takes away the place where the pages were.
            Purpose::Move => self
                .steps
                .iter()
                .position(|step| matches!(step, Step::Migrate { .. }))
                .map_or(self.steps.len(), |at| at + 1),
            Purpose::Shrink | Purpose::Release => 0,
        }
    }
}

/// The steps that undo an accepted plan of which `begun` steps were begun, the last one first. What another reservation came to
/// need in the meantime (a circuit, a brick that is on) stays.
pub fn undo(rack: &Rack, plan: &Plan, begun: usize) -> Result<Vec<Step>, RackError> {
    let id = plan.reservation();
    let reservation = rack.reservation(id)?;
    if begun > plan.undoable_until() {
        return Err(RackError::State {
            id,
            is: reservation.state,
            needs: "its plan can only be carried through",
        });
    }
    rack.check_way_back(reservation)?;
    let ours = Ours { rack, plan, reservation };
    let begun = &plan.steps()[..begun.min(plan.steps().len())];
    let is_memory = |step: &&Step| matches!(step, Step::PowerOn { .. } | Step::SegmentCreate { .. });
    let (memory, compute): (Vec<&Step>, Vec<&Step>) = begun.iter().rev().partition(is_memory);
    let mut steps: Vec<_> = compute.into_iter().filter_map(|step| ours.reverse(step)).collect();
    let kept: Vec<_> = match plan.purpose() {
        Purpose::Reserve(_) => Vec::new(),
        _ => {
            let added: Vec<_> = plan.grant.segments.iter().map(|segment| segment.id).collect();
            reservation.circuits_without(&added)
        }
    };
    // Not only circuits that this plan set: it may be the last user of one that was there.
    steps.extend(steps::disconnect(steps::idle_paths(rack, reservation, &kept)));
    steps.extend(memory.into_iter().filter_map(|step| ours.reverse(step)));
    Ok(steps)
}

/// What an accepted plan brought, and nobody else came to need.
struct Ours<'a> {
    rack: &'a Rack,
    plan: &'a Plan,
    reservation: &'a Reservation,
}

impl Ours<'_> {
    fn reverse(&self, step: &Step) -> Option<Step> {
        Some(match step.clone() {
            Step::PowerOn { brick } if self.only_we_use(&brick) => Step::PowerOff { brick },
            Step::SegmentCreate { brick, segment, start, pages } => {
                Step::SegmentRemove { brick, segment, start, pages }
            }
            Step::NetPortAdd { brick, server, segment, entry } => {
                Step::NetPortRemove { brick, server, segment, entry }
            }
            Step::AcceleratorBind { brick, accelerator, slots } => {
                Step::AcceleratorUnbind { brick, accelerator, slots }
            }
            Step::Attach { brick, segments } => Step::Detach { brick, segments },
            Step::Migrate { brick, from, to } => Step::Migrate { brick, from: to, to: from },
            _ => return None,
        })
    }

    /// Whether the brick was to be woken and nothing but this plan holds any of it.
    fn only_we_use(&self, name: &Name) -> bool {
        let Ok(brick) = self.rack.brick(name) else { return false };
        let added = |segment: &SegmentId| self.plan.grant.segments.iter().any(|ours| ours.id == *segment);
        let no_other_holds =
            self.rack.reservations().filter(|other| other.id != self.reservation.id).all(|other| {
                other.compute != *name
                    && other.accelerator.as_ref().is_none_or(|accelerator| accelerator.brick != *name)
            });
        let waking = brick.power() == crate::Power::Waking || self.plan.grant.wake.contains(name);
        waking && no_other_holds && brick.extents().iter().all(|(_, segment)| added(&segment))
    }
}
