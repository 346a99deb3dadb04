//! Emptying a memory brick: one plan for each reservation that has memory on it.

use rackmem_types::Bytes;

use super::Plan;
use super::place::{Need, Search};
use super::refusal::{Around, Refusal, Shortage};
use super::relocate::relocate;
use super::reserve::Found;
use crate::graph::Role;
use crate::{Event, Name, Rack, RackError, Request, Reservation, SegmentId};

/// The next plan that moves a reservation's memory off the memory brick `brick`; none if nothing lies on it any more.
///
/// Bricks may be woken for it, and the class of each reservation is kept.
pub fn drain_next(rack: &Rack, brick: &Name) -> Result<Option<Plan>, RackError> {
    if rack.brick(brick)?.role() != Role::Memory {
        let holders = rack.reservations().filter(|reservation| holds(reservation, brick));
        let reasons: Vec<_> =
            holders.map(|reservation| format!("reservation {} holds some of it", reservation.id)).collect();
        return if reasons.is_empty() {
            Ok(None)
        } else {
            Err(RackError::InUse { name: brick.clone(), reasons })
        };
    }
    let Some(segment) = rack.segments_on(brick)?.next() else { return Ok(None) };
    if let Some(group) = &segment.group {
        let users = segment
            .users
            .iter()
            .map(|user| format!("reservation {user} shares segment {} of {group}", segment.id));
        return Err(RackError::InUse { name: brick.clone(), reasons: users.collect() });
    }
    let Some(user) = segment.users.first() else { return Ok(None) };
    let reservation = super::applied(rack, *user)?;
    let here: Vec<SegmentId> = rack
        .segments_on(brick)?
        .filter(|segment| segment.users.first() == Some(user))
        .map(|segment| segment.id)
        .collect();
    moved_away(rack, reservation, brick, here).map(Some)
}

/// Every plan of [`drain_next`], each on the rack that the ones before it leave: what a drain would do. The rack stays as it is.
pub fn drain(rack: &Rack, brick: &Name) -> Result<Vec<Plan>, RackError> {
    let mut after = rack.clone();
    after.apply(&Event::Draining { brick: brick.clone(), draining: true })?;
    let mut plans = Vec::new();
    while let Some(plan) = drain_next(&after, brick)? {
        after.apply(&Event::Accepted(Box::new(plan.clone())))?;
        after.apply(&Event::Done(plan.reservation()))?;
        plans.push(plan);
    }
    Ok(plans)
}

/// What has to be moved next off the memory brick `brick`, as a request that [`super::why`] explains; none if nothing can be moved.
pub fn drain_request(rack: &Rack, brick: &Name) -> Option<Request> {
    let segment = rack.segments_on(brick).ok()?.find(|segment| segment.group.is_none())?;
    let reservation = rack.reservation(*segment.users.first()?).ok()?;
    let here = rack.segments_on(brick).ok()?.filter(|other| other.users == segment.users);
    Some(reservation.more(Bytes::from_pages(here.map(|segment| segment.pages).sum())))
}

fn holds(reservation: &Reservation, brick: &Name) -> bool {
    reservation.compute == *brick || reservation.accelerator.as_ref().is_some_and(|held| held.brick == *brick)
}

/// Why so many pages of a reservation find no place but on `brick`.
fn nowhere_else(rack: &Rack, reservation: &Reservation, brick: &Name, amount: u64) -> Shortage {
    let class = reservation.request.class;
    let mut around = Around::of(rack, &reservation.compute, class);
    // While it takes nothing new it is not among them.
    if let Some(here) = rack.brick(brick).ok().filter(|here| here.takes_more()) {
        around.forget(here);
    }
    Shortage::Elsewhere {
        reservation: reservation.id,
        class,
        asked: Bytes::from_pages(amount),
        spread: reservation.request.spread,
        around,
    }
}

fn moved_away(
    rack: &Rack,
    reservation: &Reservation,
    brick: &Name,
    here: Vec<SegmentId>,
) -> Result<Plan, RackError> {
    let from = rack.graph.brick_node(&reservation.compute)?;
    let amount = here.iter().filter_map(|id| rack.segment(*id)).map(|segment| segment.pages).sum();
    let need = Need {
        role: Role::Memory,
        amount,
        ceiling: reservation.request.class,
        spread: reservation.request.spread.into(),
        model: None,
        not: Some(rack.graph.brick_node(brick)?),
        wake: true,
    };
    let memory = Search::new(rack, from)
        .place(&need)
        .ok_or_else(|| Refusal::named(brick, nowhere_else(rack, reservation, brick, amount)))?;
    relocate(rack, reservation, &Found { from, memory, joined: Vec::new(), accelerator: None }, here)
}
