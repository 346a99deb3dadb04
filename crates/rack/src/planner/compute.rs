//! Which compute brick: the one asked for, or the fullest that has the cores and whose surroundings have the memory.

use super::refusal::{Refusal, Shortage};
use super::reserve::{Found, surroundings};
use crate::extents::Extents;
use crate::graph::{Brick, NETPORTS_MAX, Node, Role, Site};
use crate::index::Shelf;
use crate::reservation::pages_of;
use crate::{LatencyClass, Name, Rack, RackError, Request};

/// Compute bricks that a request for any brick looks at closely, in each round. The first nearly always will do; where they have
/// the cores but no ports, a bound keeps one decision below a millisecond.
const CANDIDATES_MAX: usize = 16;

/// Of these, how many of one tray or rack: if its fullest do not do, others of the same place seldom will.
const PLACE_CANDIDATES_MAX: usize = 4;

/// The brick that the request names, and what its surroundings give.
pub(super) fn named(rack: &Rack, name: &Name, request: &Request) -> Result<Found, RackError> {
    let node = rack.graph.brick_node(name)?;
    let brick = rack.brick(name)?;
    if let Some(shortage) = shortage(brick, request) {
        return Err(Refusal::named(name, shortage).into());
    }
    // Of several needs none is to wake anything if all can be met without; a single one sees to that itself.
    let several = request.accelerator.is_some() && request.memory.0 > 0;
    let rounds = if several { &[false, true][..] } else { &[true] };
    rounds
        .iter()
        .find_map(|wake| surroundings(rack, node, request, *wake))
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
    let mut fitting = false;
    let asleep = has_asleep(rack);
    for (wake_compute, wake_memory) in [(false, false), (false, true), (true, false), (true, true)] {
        if wake_memory && !asleep {
            continue;
        }
        let round = Round { rack, request, wake_compute, wake_memory };
        let mut tried = Vec::new();
        // The fullest few of all nearly always include one that will do; only then is every place looked at.
        for candidates in [Round::fullest, Round::everywhere] {
            let candidates = candidates(&round);
            fitting |= !candidates.is_empty();
            for (_, node) in candidates.into_iter().take(CANDIDATES_MAX) {
                if tried.contains(&node) {
                    continue;
                }
                if let Some(found) = surroundings(rack, node, request, wake_memory) {
                    return Ok(found);
                }
                tried.push(node);
            }
        }
    }
    Err(Refusal::anywhere(request, fitting).into())
}

/// Whether there is a memory or accelerator brick that could be woken.
fn has_asleep(rack: &Rack) -> bool {
    [Role::Memory, Role::Accelerator].into_iter().any(|role| {
        let shelf = rack.index.shelf(role, LatencyClass::Interrack, Site::default());
        shelf.is_some_and(|shelf| !shelf.off.is_empty())
    })
}

/// A round of the search for any compute brick.
struct Round<'a> {
    rack: &'a Rack,
    request: &'a Request,
    wake_compute: bool,
    wake_memory: bool,
}

impl Round<'_> {
    /// Of the fullest compute bricks that have the cores, those that have enough memory around them.
    fn fullest(&self) -> Vec<(u64, Node)> {
        let Some(compute) = self.rack.index.shelf(Role::Compute, LatencyClass::Interrack, Site::default())
        else {
            return Vec::new();
        };
        let first = self.bricks(compute).take(CANDIDATES_MAX).filter(|(_, node)| {
            let site = self.rack.graph.brick_at(*node).map(|brick| brick.site).unwrap_or_default();
            let memory = self.rack.index.shelf(Role::Memory, self.class(), site);
            self.fits(*node)
                && memory.map_or(0, |memory| self.memory(memory)) >= pages_of(self.request.memory)
        });
        first.collect()
    }

    /// Of the first places that have enough memory within the class, the fullest compute bricks that have the cores; fullest first.
    /// Places come in a fixed order, so that what is in use stays together, and not all are looked at.
    fn everywhere(&self) -> Vec<(u64, Node)> {
        let each =
            if self.class() == LatencyClass::Interrack { CANDIDATES_MAX } else { PLACE_CANDIDATES_MAX };
        let need = pages_of(self.request.memory);
        let places = self.rack.index.places(self.class());
        let enough = places.filter(|place| self.memory(place.of(Role::Memory)) >= need);
        let fitting = enough.flat_map(|place| {
            self.bricks(place.of(Role::Compute)).filter(|(_, node)| self.fits(*node)).take(each)
        });
        let mut candidates: Vec<_> = fitting.take(CANDIDATES_MAX).collect();
        candidates.sort_unstable();
        candidates
    }

    /// Who wants no far memory can be anywhere.
    fn class(&self) -> LatencyClass {
        if self.request.memory.0 == 0 { LatencyClass::Interrack } else { self.request.class }
    }

    fn bricks<'s>(&self, compute: &'s Shelf) -> impl Iterator<Item = (u64, Node)> + use<'s> {
        let set = if self.wake_compute { &compute.off } else { &compute.on };
        set.range((u64::from(self.request.cores), Node::new(0))..).copied()
    }

    fn memory(&self, memory: &Shelf) -> u64 {
        memory.free_on + memory.free_closed + if self.wake_memory { memory.free_off } else { 0 }
    }

    fn fits(&self, node: Node) -> bool {
        self.rack.graph.brick_at(node).is_some_and(|brick| shortage(brick, self.request).is_none())
    }
}
