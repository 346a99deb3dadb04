//! Which compute brick: the one asked for, or the fullest that has the cores and whose surroundings have the memory.

use super::refusal::{Refusal, Shortage};
use super::reserve::{Found, surroundings};
use crate::extents::Extents;
use crate::graph::{Brick, NETPORTS_MAX, Node, Power, Role};
use crate::reservation::pages_of;
use crate::{LatencyClass, Name, Rack, RackError, Request};

/// Compute bricks that a request for any brick looks at closely, in each round. The first nearly always will do; where they have
/// the cores but no ports, a bound keeps one decision below a millisecond.
const CANDIDATES_MAX: usize = 64;

/// The brick that the request names, and what its surroundings give.
pub(super) fn named(rack: &Rack, name: &Name, request: &Request) -> Result<Found, RackError> {
    let node = rack.graph.brick_node(name)?;
    let brick = rack.brick(name)?;
    if let Some(shortage) = shortage(brick, request) {
        return Err(Refusal::named(name, shortage).into());
    }
    [false, true]
        .into_iter()
        .find_map(|wake| surroundings(rack, node, request, wake))
        .ok_or_else(|| Refusal::memory(rack, brick, request).into())
}

/// Why a compute brick cannot take the request whatever its surroundings have.
pub(super) fn shortage(brick: &Brick, request: &Request) -> Option<Shortage> {
    if brick.role() != Role::Compute {
        Some(Shortage::NotCompute)
    } else if brick.is_draining() {
        Some(Shortage::Draining)
    } else if !brick.is_reachable() {
        Some(Shortage::Silent)
    } else if brick.free() < request.cores.into() {
        Some(Shortage::Cores { free: brick.free() as u32, asked: request.cores })
    } else if brick.local_free().pages() < pages_of(request.local) {
        Some(Shortage::Local { free: brick.local_free(), asked: request.local })
    } else if request.memory.0 > 0 && table_is_full(brick.extents()) {
        Some(Shortage::NetPorts(NETPORTS_MAX))
    } else {
        None
    }
}

fn table_is_full(extents: &Extents) -> bool {
    extents.count() >= NETPORTS_MAX
}

/// Any compute brick: powered ones first, the least free cores first; a round that wakes memory only if none did without, and a
/// compute brick is woken last.
pub(super) fn any(rack: &Rack, request: &Request) -> Result<Found, RackError> {
    for (wake_compute, wake_memory) in [(false, false), (false, true), (true, false), (true, true)] {
        let fitting = candidates(rack, request, wake_compute).filter(|(_, brick)| {
            shortage(brick, request).is_none() && surroundings_might(rack, brick, request, wake_memory)
        });
        let found =
            fitting.take(CANDIDATES_MAX).find_map(|(node, _)| surroundings(rack, node, request, wake_memory));
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Err(Refusal::anywhere(rack, request).into())
}

fn candidates<'a>(rack: &'a Rack, request: &Request, off: bool) -> impl Iterator<Item = (Node, &'a Brick)> {
    let shelf = rack.index.shelf(Role::Compute, LatencyClass::Interrack, crate::graph::Site::default());
    let set = shelf.map(|shelf| if off { &shelf.off } else { &shelf.on });
    let enough = (u64::from(request.cores), Node::new(0));
    let nodes = set.into_iter().flat_map(move |set| set.range(enough..));
    nodes.filter_map(|&(_, node)| Some((node, rack.graph.brick_at(node)?)))
}

/// Whether there is enough memory around the brick, wherever it lies: cheap, and right whenever it says no.
fn surroundings_might(rack: &Rack, brick: &Brick, request: &Request, wake: bool) -> bool {
    let need = pages_of(request.memory);
    let shelf = rack.index.shelf(Role::Memory, request.class, brick.site);
    let there = shelf.map_or(0, |shelf| shelf.free_on + if wake { shelf.free_off } else { 0 });
    need <= there && (brick.power() != Power::Off || brick.is_idle())
}
