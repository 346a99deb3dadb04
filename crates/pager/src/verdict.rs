//! Which order of changes the kernel bears out.
//!
//! Where several orders of changes are possible (`order.rs`) the kernel is asked what lies where now, and which pages are there.
//! What speaks for none of them is said: those pages' content is not known.

use std::ops::Range;

use crate::core::{Core, PAGE};
use crate::entry::State;
use crate::order::{self, Layout, Order, Step, Strain};
use crate::space::Space;
use crate::table::SpaceId;

/// Pages that are looked at to tell two orders apart: a second's part of a thousand.
const WITNESSES_MAX: usize = 1024;

/// The order in which the steps took place, and the pages of which it remains open whose they are. `None`: a change has begun
/// meanwhile.
pub(crate) fn decide(core: &Core, id: SpaceId, steps: &[Step]) -> Option<(Order, Vec<u64>)> {
    let space = core.space(id)?;
    let places: Vec<Range<u64>> = steps.iter().flat_map(Step::places).collect();
    let mut mapped: Vec<Range<u64>> =
        places.iter().flat_map(|place| space.regions.overlapping(place)).collect();
    mapped.sort_by_key(|range| range.start);
    mapped.dedup();
    let (mut orders, mut fits) = (order::orders(&Layout::new(mapped.iter().cloned()), steps), true);
    // Whose place is whose is open only if something moves.
    if steps.iter().any(|step| matches!(step, Step::Move(..))) {
        (orders, fits) = likeliest(space, orders, &places)?;
    }
    let mut undecided = Vec::new();
    if orders.len() > 1 {
        tracing::info!(?steps, "changes of mappings that more than one order explains");
        undecided = witnessed(core, id, &mut orders, &places);
    }
    if !fits {
        // Something was mapped that we do not know of, or there are too many orders to find the right one.
        tracing::info!(?steps, ?mapped, strain = ?orders[0].strain, order = ?orders[0].steps, "changes of mappings that no order explains");
        undecided = pages(&places).collect();
    }
    Some((orders.swap_remove(0), undecided))
}

/// What speaks against an order, worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Misfit {
    /// What a kernel does not do, and borders of mappings that would be there and are not.
    impossible: u32,
    unlikely: u32,
    /// Borders of mappings of which it knows nothing. One may have grown, or been registered since: that says least.
    unknown: u32,
}

/// The orders that fit best to what a kernel can do, and to what is registered now; and whether they fit.
///
/// An order with strangers is kept beside the best one without, if it is as possible. What is registered now does not tell
/// the two apart: the stranger's place may be full of the moved mapping, or of a neighbour that has grown into it since.
fn likeliest(space: &Space, orders: Vec<Order>, places: &[Range<u64>]) -> Option<(Vec<Order>, bool)> {
    let mut borders: Vec<u64> = places.iter().flat_map(|place| [place.start, place.end - PAGE]).collect();
    borders.sort_unstable();
    borders.dedup();
    let misfit = |order: &Order| {
        let Strain { impossible, unlikely } = order.strain;
        Misfit { impossible, unlikely, unknown: 0 }
    };
    let mut misfits: Vec<Misfit> = orders.iter().map(misfit).collect();
    for address in borders {
        let is_mapped = space.uffd.is_registered(address)?;
        for (order, misfit) in orders.iter().zip(&mut misfits) {
            match (order.layout.origin(address).is_some(), is_mapped) {
                (true, false) => misfit.impossible += 1,
                (false, true) => misfit.unknown += 1,
                _ => {}
            }
        }
    }
    let least = misfits.iter().map(|misfit| misfit.impossible).min()?;
    let without = orders.iter().zip(&misfits).filter(|(order, _)| !order.has_strangers);
    let without = without.map(|(_, misfit)| *misfit).filter(|misfit| misfit.impossible == least).min();
    let best = without.or_else(|| misfits.iter().copied().min())?;
    let stands_beside = |order: &Order, misfit: &Misfit| {
        without.is_some()
            && order.has_strangers
            && misfit.impossible == least
            && misfit.unlikely <= best.unlikely
    };
    let fits = |(order, misfit): &(Order, Misfit)| *misfit == best || stands_beside(order, misfit);
    Some((orders.into_iter().zip(misfits).filter(fits).map(|(order, _)| order).collect(), least == 0))
}

/// Drops orders that contradict which pages are there, and gives the pages on which the rest still differ.
fn witnessed(core: &Core, id: SpaceId, orders: &mut Vec<Order>, places: &[Range<u64>]) -> Vec<u64> {
    let Some(space) = core.space(id) else { return Vec::new() };
    let was_there = |origin: Option<(u64, bool)>| {
        let (origin, dropped) = origin?;
        let page = core.table.find(id, origin)?;
        match core.table.get(page).state {
            State::Resident if !dropped => Some(true),
            State::Far | State::Fetching | State::Standby => Some(false),
            _ => None,
        }
    };
    // What has no content is the same wherever it comes from: zeros.
    let content = |order: &Order, address: u64| {
        let (origin, dropped) = order.layout.origin(address)?;
        let state = core.table.get(core.table.find(id, origin)?).state;
        (!dropped && state != State::Empty).then_some(origin)
    };
    let differ = |orders: &[Order], address: u64| {
        let first = content(&orders[0], address);
        orders[1..].iter().any(|order| content(order, address) != first)
    };
    let witnesses: Vec<u64> =
        pages(places).filter(|&address| differ(orders, address)).take(WITNESSES_MAX).collect();
    for address in witnesses {
        let missing = space.pid.and_then(|pid| space.uffd.is_missing(pid, address).ok());
        let Some(there) = missing.map(|missing| !missing) else { break };
        let fits = |order: &Order| was_there(order.layout.origin(address)).is_none_or(|was| was == there);
        if orders.iter().any(fits) {
            orders.retain(fits);
        }
    }
    if orders.len() < 2 {
        return Vec::new();
    }
    pages(places).filter(|&address| differ(orders, address)).collect()
}

fn pages(places: &[Range<u64>]) -> impl Iterator<Item = u64> {
    places.iter().flat_map(|place| place.clone().step_by(PAGE as usize))
}
