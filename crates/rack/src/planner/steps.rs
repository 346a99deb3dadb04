//! The exact steps of a plan: memory, then switches, then the compute brick; the other way round when it ends.

use std::collections::BTreeMap;

use crate::graph::{CircuitState, Path, Power};
use crate::inventory::Difference;
use crate::planner::{Grant, NetPort, Step};
use crate::{CircuitId, Mapping, Name, Rack, Reservation, ReservationId, SegmentId, State};

/// The steps that carry out what `grant` adds.
pub(crate) fn attach(rack: &Rack, grant: &Grant) -> Vec<Step> {
    let mut steps = power_on(rack, grant);
    steps.extend(grant.segments.iter().map(|segment| Step::SegmentCreate {
        brick: segment.brick.clone(),
        segment: segment.id,
        start: segment.start,
        pages: segment.pages,
    }));
    // A circuit that another plan is setting may not be there yet; connecting it twice does no harm.
    let reused = grant.reused.iter().filter_map(|id| rack.circuit(*id));
    let unsure = reused.filter(|circuit| circuit.state != CircuitState::Up).map(|circuit| &circuit.path);
    let pairs = crossings(unsure.chain(grant.circuits.iter().map(|(_, path)| path)));
    steps.extend(pairs.into_iter().map(|(switch, pairs)| Step::Connect { switch, pairs }));
    for mapping in &grant.mappings {
        let (server, port) = ends(rack, grant, mapping);
        steps.push(Step::NetPortAdd {
            brick: grant.compute.clone(),
            server,
            segment: mapping.segment,
            entry: entry(mapping, port),
        });
    }
    if let Some(accelerator) = &grant.accelerator {
        steps.push(Step::AcceleratorBind {
            brick: grant.compute.clone(),
            accelerator: accelerator.brick.clone(),
            slots: accelerator.slots,
        });
    }
    if !grant.mappings.is_empty() {
        let segments = grant.mappings.iter().map(|mapping| mapping.segment).collect();
        steps.push(Step::Attach { brick: grant.compute.clone(), segments });
    }
    steps
}

/// Every brick of the grant that nobody has seen on yet: the woken ones, and those that another plan is waking.
fn power_on(rack: &Rack, grant: &Grant) -> Vec<Step> {
    let mut bricks: Vec<&Name> = grant.segments.iter().map(|segment| &segment.brick).collect();
    bricks.extend(grant.accelerator.iter().map(|accelerator| &accelerator.brick));
    bricks.push(&grant.compute);
    bricks.dedup();
    bricks.retain(|name| rack.brick(name).is_ok_and(|brick| brick.power() != Power::On));
    bricks.into_iter().map(|brick| Step::PowerOn { brick: brick.clone() }).collect()
}

/// What a reservation keeps when some of its segments are gone.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rest<'a> {
    /// Nothing: it ends.
    Nothing,
    /// All else that it has, and these circuits, which what it gets instead will need.
    With(&'a [CircuitId]),
}

/// The steps that end a reservation's hold on `segments`, and on its accelerator if nothing is left.
pub(crate) fn detach(
    rack: &Rack,
    reservation: &Reservation,
    segments: &[SegmentId],
    rest: Rest<'_>,
) -> Vec<Step> {
    let compute = &reservation.compute;
    let gone: Vec<&Mapping> =
        reservation.mappings.iter().filter(|mapping| segments.contains(&mapping.segment)).collect();
    let mut steps = Vec::new();
    if !gone.is_empty() {
        let segments = gone.iter().map(|mapping| mapping.segment).collect();
        steps.push(Step::Detach { brick: compute.clone(), segments });
    }
    steps.extend(entries_removed(rack, compute, &gone));
    let (kept, accelerator) = match rest {
        Rest::Nothing => (Vec::new(), reservation.accelerator.as_ref()),
        Rest::With(circuits) => ([&reservation.circuits_without(segments), circuits].concat(), None),
    };
    steps.extend(accelerator.map(|accelerator| Step::AcceleratorUnbind {
        brick: compute.clone(),
        accelerator: accelerator.brick.clone(),
        slots: accelerator.slots,
    }));
    steps.extend(disconnect(idle_paths(rack, reservation, &kept)));
    steps.extend(segments_removed(rack, reservation, &gone));
    steps
}

/// The ways of the reservation's circuits that nobody needs when it needs only `kept` any more.
pub(crate) fn idle_paths<'a>(rack: &'a Rack, reservation: &Reservation, kept: &[CircuitId]) -> Vec<&'a Path> {
    let idle =
        reservation.circuits().into_iter().filter(|id| !kept.contains(id)).filter_map(|id| rack.circuit(id));
    idle.filter(|circuit| circuit.users.iter().all(|user| *user == reservation.id))
        .map(|circuit| &circuit.path)
        .collect()
}

pub(crate) fn disconnect(paths: Vec<&Path>) -> Vec<Step> {
    let pairs = crossings(paths.into_iter());
    pairs.into_iter().rev().map(|(switch, pairs)| Step::Disconnect { switch, pairs }).collect()
}

fn entries_removed(rack: &Rack, compute: &Name, gone: &[&Mapping]) -> Vec<Step> {
    let entries = gone.iter().filter_map(|mapping| {
        let server = rack.segment(mapping.segment)?.brick.clone();
        let port = rack.circuit(mapping.circuit)?.path.near().port;
        let (brick, segment) = (compute.clone(), mapping.segment);
        Some(Step::NetPortRemove { brick, server, segment, entry: entry(mapping, port) })
    });
    entries.collect()
}

/// The segments that go with their last user. One that its server has lost is not removed there.
fn segments_removed(rack: &Rack, reservation: &Reservation, gone: &[&Mapping]) -> Vec<Step> {
    let last =
        gone.iter().filter(|mapping| !mapping.lost).filter_map(|mapping| rack.segment(mapping.segment));
    // Of several who leave a group at the same time, the one who began last removes what they shared.
    let leaves = |user: &ReservationId| {
        *user == reservation.id || rack.reservation(*user).is_ok_and(|other| other.state == State::Releasing)
    };
    last.filter(|segment| segment.users.iter().all(leaves))
        .map(|segment| Step::SegmentRemove {
            brick: segment.brick.clone(),
            segment: segment.id,
            start: segment.start,
            pages: segment.pages,
        })
        .collect()
}

/// What each switch has to connect for some paths, in the order in which the paths meet the switches.
fn crossings<'a>(paths: impl Iterator<Item = &'a Path>) -> Vec<(Name, Vec<[u16; 2]>)> {
    let mut order: Vec<(Name, Vec<[u16; 2]>)> = Vec::new();
    let mut places: BTreeMap<Name, usize> = BTreeMap::new();
    for (switch, pair) in paths.flat_map(Path::crossings) {
        let place = *places.entry(switch.clone()).or_insert_with(|| {
            order.push((switch.clone(), Vec::new()));
            order.len() - 1
        });
        order[place].1.push(pair);
    }
    order
}

/// The memory brick at the end of a mapping, and the compute brick's port that leads there.
fn ends(rack: &Rack, grant: &Grant, mapping: &Mapping) -> (Name, u16) {
    let fresh = grant.segments.iter().find(|segment| segment.id == mapping.segment);
    let server = fresh.or_else(|| rack.segment(mapping.segment)).map(|segment| segment.brick.clone());
    let set = grant.circuits.iter().find(|(id, _)| *id == mapping.circuit).map(|(_, path)| path);
    let path = set.or_else(|| rack.circuit(mapping.circuit).map(|circuit| &circuit.path));
    (server.unwrap_or_else(|| grant.compute.clone()), path.map_or(0, |path| path.near().port))
}

/// The step that puts right that a compute brick does not map a segment which its reservation has; none for other differences.
pub fn enter_again(rack: &Rack, difference: &Difference) -> Option<Step> {
    let Difference::NotMapped { brick, segment } = difference else { return None };
    let has = rack.segment(*segment)?;
    let users = has.users.iter().filter_map(|user| rack.reservation(*user).ok());
    let mut mappings = users.filter(|user| user.compute == *brick).flat_map(|user| &user.mappings);
    let mapping = mappings.find(|mapping| mapping.segment == *segment && !mapping.lost)?;
    let port = rack.circuit(mapping.circuit)?.path.near().port;
    let (brick, server, segment) = (brick.clone(), has.brick.clone(), *segment);
    Some(Step::NetPortAdd { brick, server, segment, entry: entry(mapping, port) })
}

/// A mapping as a NetPort entry: a segment's pages are counted from 0.
fn entry(mapping: &Mapping, port: u16) -> NetPort {
    let start = mapping.start;
    NetPort { start, end: start + mapping.pages, port, offset: -(start as i64) }
}
