//! Whether a plan still fits the rack, and if not, what changed.

use std::ops::Range;

use crate::extents::Obstacle;
use crate::graph::{Brick, Power, Role};
use crate::planner::steps::{self, Rest};
use crate::planner::{self, Plan, Purpose, Step};
use crate::reservation::pages_of;
use crate::{Name, Rack, RackError, Request, Segment, State};

impl Rack {
    /// What has changed since `plan` was made so that it cannot be carried out any more; empty if it still can.
    ///
    /// Only what the plan relies on counts: a rack of a later generation may still be one that the plan fits.
    pub fn overtaken(&self, plan: &Plan) -> Vec<String> {
        let mut changes = Vec::new();
        if !self.leaves_the_same(plan) {
            changes.push("what else uses its circuits and segments has changed".to_owned());
        }
        if let Err(error) = self.check_reservation(plan) {
            changes.push(error.to_string());
            return changes;
        }
        self.check_bricks(plan, &mut changes);
        self.check_ranges(plan, &mut changes);
        self.check_circuits(plan, &mut changes);
        changes
    }

    fn check_reservation(&self, plan: &Plan) -> Result<(), RackError> {
        let id = plan.reservation;
        let Purpose::Reserve(request) = &plan.purpose else {
            let reservation = self.reservation(id)?;
            let is = reservation.state;
            let free = reservation.pending.is_none();
            let missing = plan
                .removed
                .iter()
                .any(|segment| !reservation.mappings.iter().any(|mapping| mapping.segment == *segment));
            return match (&plan.purpose, is) {
                (_, State::Applied) if free && !missing => Ok(()),
                (Purpose::Release, State::Reserved) => Ok(()),
                _ => Err(RackError::State {
                    id,
                    is,
                    needs: "and has changed since, or another plan is under way",
                }),
            };
        };
        if self.reservations.contains_key(&id) {
            return Err(RackError::ReservationNumber(id));
        }
        self.check_group(request, plan)
    }

    /// Whether what the plan takes down is still what nobody else uses.
    fn leaves_the_same(&self, plan: &Plan) -> bool {
        let Ok(reservation) = self.reservation(plan.reservation) else { return true };
        match plan.purpose {
            Purpose::Release => {
                planner::release(self, plan.reservation).is_ok_and(|now| now.steps == plan.steps)
            }
            Purpose::Shrink | Purpose::Move => {
                let now = steps::detach(self, reservation, &plan.removed, Rest::With(&plan.grant.reused));
                now.iter()
                    .filter(|step| !matches!(step, Step::Detach { .. }))
                    .all(|step| plan.steps.contains(step))
            }
            Purpose::Reserve(_) | Purpose::Grow => true,
        }
    }

    fn check_group(&self, request: &Request, plan: &Plan) -> Result<(), RackError> {
        match &request.group {
            Some(crate::GroupNeed::Init(name)) if self.groups.contains_key(name) => {
                Err(RackError::Request(format!("the shared group '{name}' is there by now")))
            }
            Some(crate::GroupNeed::Join(name)) => {
                let members = self.groups.get(name).map_or(&[][..], Vec::as_slice);
                let same = members.len() == plan.grant.mappings.len()
                    && plan.grant.mappings.iter().all(|mapping| members.contains(&mapping.segment));
                let lost = members.iter().filter_map(|id| self.segment(*id)).any(|it| self.is_lost(it));
                if same && !lost {
                    Ok(())
                } else {
                    Err(RackError::Request(format!(
                        "the shared group '{name}' has other segments by now, has lost one, or is gone"
                    )))
                }
            }
            _ => Ok(()),
        }
    }

    fn check_bricks(&self, plan: &Plan, changes: &mut Vec<String>) {
        let grant = &plan.grant;
        if let Purpose::Reserve(request) = &plan.purpose {
            if let Some(brick) = self.usable(&grant.compute, plan, changes) {
                if brick.role() != Role::Compute || brick.free() < u64::from(request.cores) {
                    changes.push(format!(
                        "{} has {} cores free by now, not {}",
                        brick.name(),
                        brick.free(),
                        request.cores
                    ));
                }
                if brick.local_free().pages() < pages_of(request.local) {
                    changes.push(format!(
                        "{} has {} of local memory free by now",
                        brick.name(),
                        brick.local_free()
                    ));
                }
            }
            if let Some(accelerator) = &grant.accelerator
                && let Some(brick) = self.usable(&accelerator.brick, plan, changes)
                && (brick.role() != Role::Accelerator || brick.free() < accelerator.slots.into())
            {
                changes.push(format!("{} has {} slots free by now", brick.name(), brick.free()));
            }
        }
        let mut servers: Vec<&Name> = grant.segments.iter().map(|segment| &segment.brick).collect();
        servers.dedup();
        for name in servers {
            let Some(brick) = self.usable(name, plan, changes) else { continue };
            let need: u64 =
                grant.segments.iter().filter(|segment| segment.brick == *name).map(|s| s.pages).sum();
            if brick.role() != Role::Memory || brick.free() < need {
                changes.push(format!("{name} has {} pages free by now, not {need}", brick.free()));
            }
        }
    }

    /// The brick, if the plan can use it; else what changed.
    fn usable<'a>(&'a self, name: &Name, plan: &Plan, changes: &mut Vec<String>) -> Option<&'a Brick> {
        let Ok(brick) = self.brick(name) else {
            changes.push(format!("{name} is not registered any more"));
            return None;
        };
        if !brick.is_reachable() {
            changes.push(format!("{name} does not answer any more"));
        } else if brick.is_draining() {
            changes.push(format!("{name} drains by now"));
        } else if brick.power() == Power::Off && !plan.grant.wake.contains(name) {
            changes.push(format!("{name} is powered off by now"));
        }
        Some(brick)
    }

    fn check_ranges(&self, plan: &Plan, changes: &mut Vec<String>) {
        for Segment { id, brick, .. } in &plan.grant.segments {
            if self.segments.contains_key(id) {
                changes.push(format!("segment {id} is there by now"));
            } else if !self.brick(brick).is_ok_and(|brick| brick.role() == Role::Memory) {
                changes.push(format!("{brick} is no memory brick any more"));
            }
        }
        for segment in &plan.grant.segments {
            self.check_range(&segment.brick, &segment.range(), changes);
        }
        for mapping in &plan.grant.mappings {
            self.check_range(&plan.grant.compute, &mapping.range(), changes);
        }
    }

    fn check_range(&self, name: &Name, range: &Range<u64>, changes: &mut Vec<String>) {
        let Ok(brick) = self.brick(name) else { return };
        match brick.extents().obstacle(range) {
            Some(Obstacle::Owner(owner)) => {
                changes.push(format!(
                    "pages {}..{} of {name} belong to segment {owner} by now",
                    range.start, range.end
                ));
            }
            Some(Obstacle::Limit(limit)) => changes.push(format!("{name} has only {limit} pages by now")),
            None => {}
        }
    }

    fn check_circuits(&self, plan: &Plan, changes: &mut Vec<String>) {
        for id in &plan.grant.reused {
            match self.circuit(*id) {
                None => changes.push(format!("circuit {id} is gone")),
                Some(circuit) if !circuit.state.is_usable() => {
                    changes.push(format!("circuit {id} is down or being disconnected"))
                }
                Some(_) => {}
            }
        }
        for (id, path) in &plan.grant.circuits {
            if self.circuit(*id).is_some() {
                changes.push(format!("circuit {id} is there by now"));
            }
            changes.extend(self.graph.path_obstacle(path));
        }
    }
}
