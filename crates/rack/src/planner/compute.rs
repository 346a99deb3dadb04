//! Which compute brick: the one asked for, or the fullest that has the cores and whose surroundings have the memory.

use super::place::free_there;
use super::refusal::{Refusal, Shortage};
use super::reserve::{Found, surroundings};
use crate::extents::Extents;
use crate::graph::{Brick, NETPORTS_MAX, Node, Role, Site};
use crate::index::{Shelf, Shelves};
use crate::reservation::pages_of;
use crate::{LatencyClass, Name, Rack, RackError, Request};

/// Bounds of one round of a request for any compute brick, which nearly always ends at the first brick: they keep a decision short where
/// the cores are there but no ports. So many of the fullest are looked at wherever they are,
const FULLEST_MAX: usize = 16;
/// so many in each place,
const PLACE_LOOKS_MAX: usize = 4;
/// so many in all,
const LOOKS_MAX: usize = 64;
/// and of these so many closely.
const TRIES_MAX: usize = 32;

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
    for (wake_compute, wake_memory) in [(false, false), (false, true), (true, false), (true, true)] {
        let round = Round { rack, request, wake_compute, wake_memory };
        let mut seen = Seen::default();
        let worth_it = round.bricks().filter(|node| round.is_worth_a_try(*node, &mut seen));
        let found = worth_it.take(TRIES_MAX).find_map(|node| surroundings(rack, node, request, wake_memory));
        if let Some(found) = found {
            return Ok(found);
        }
        fitting |= !seen.bricks.is_empty();
    }
    Err(Refusal::anywhere(rack, request, fitting).into())
}

/// A round of the search for any compute brick.
struct Round<'a> {
    rack: &'a Rack,
    request: &'a Request,
    wake_compute: bool,
    wake_memory: bool,
}

/// What a round has looked at.
#[derive(Default)]
struct Seen {
    /// Bricks that have the cores.
    bricks: Vec<Node>,
    /// For bricks of one site that hang on one vertex by all their cables: how much memory new circuits lead to from them.
    around: Vec<((Node, Site), u64)>,
}

impl<'a> Round<'a> {
    /// Compute bricks where there is enough memory: the fullest few, which nearly always include one that will do; then those of every
    /// tray or rack, the fullest of each first. Places come in a fixed order, so that what is in use stays together.
    fn bricks(&self) -> impl Iterator<Item = Node> {
        let (index, class) = (&self.rack.index, self.class());
        let everywhere = index.place(LatencyClass::Interrack, Site::default());
        let fullest = everywhere.into_iter().flat_map(|place| self.fullest_of(place).take(FULLEST_MAX));
        let fullest = fullest.filter(move |node| {
            let site = self.rack.graph.brick_at(*node).map(|brick| brick.site).unwrap_or_default();
            index.place(class, site).is_some_and(|place| self.may_do(place))
        });
        let wide = everywhere.filter(|_| class == LatencyClass::Interrack);
        let places = index.places(class.min(LatencyClass::Rack));
        let places = places.filter(move |place| self.may_do(wide.unwrap_or(*place)));
        let all = places.flat_map(|place| self.fullest_of(place).take(PLACE_LOOKS_MAX));
        fullest.chain(all).take(LOOKS_MAX)
    }

    /// Who wants no far memory can be anywhere.
    fn class(&self) -> LatencyClass {
        if self.request.memory.0 == 0 { LatencyClass::Interrack } else { self.request.class }
    }

    /// The compute bricks of a place that have the cores, the fullest first.
    fn fullest_of(&self, place: Shelves<'a>) -> impl Iterator<Item = Node> + use<'a> {
        let compute = place.of(Role::Compute);
        let set = if self.wake_compute { &compute.off } else { &compute.on };
        set.range((u64::from(self.request.cores), Node::new(0))..).map(|(_, node)| *node)
    }

    /// Whether a place has enough memory, and something to wake in a round that wakes.
    fn may_do(&self, place: Shelves<'_>) -> bool {
        let memory = place.of(Role::Memory);
        let accelerators = self.request.accelerator.is_some().then(|| place.of(Role::Accelerator));
        let wakes = !memory.off.is_empty() || accelerators.is_some_and(|shelf| !shelf.off.is_empty());
        self.free(memory) + memory.free_closed >= pages_of(self.request.memory)
            && (wakes || !self.wake_memory)
    }

    /// What is free where new circuits can lead to.
    fn free(&self, memory: &Shelf) -> u64 {
        memory.free_on + if self.wake_memory { memory.free_off } else { 0 }
    }

    /// Whether a compute brick was not looked at before, has the cores, and may reach the memory: on the bricks that it has circuits
    /// to, and those that new ones could lead to.
    fn is_worth_a_try(&self, node: Node, seen: &mut Seen) -> bool {
        let Some(brick) = self.rack.graph.brick_at(node) else { return false };
        if seen.bricks.contains(&node) || shortage(brick, self.request).is_some() {
            return false;
        }
        seen.bricks.push(node);
        let need = pages_of(self.request.memory);
        let there = free_there(self.rack, node, Role::Memory);
        if there >= need {
            return true;
        }
        brick.open && there + self.around(node, brick, seen) >= need
    }

    /// How much memory new circuits from a brick lead to, at most.
    fn around(&self, node: Node, brick: &Brick, seen: &mut Seen) -> u64 {
        let hangs_on = brick.lanes.only().map(|lane| (lane.to, brick.site));
        let known = seen.around.iter().find(|(on, _)| Some(*on) == hangs_on);
        if let Some((_, around)) = known {
            return *around;
        }
        let class = self.class();
        // In a tray, asking what there is costs less than asking how far circuits reach.
        let reached =
            if class > LatencyClass::Tray { self.rack.graph.reach(node, class, &[]).widest() } else { class };
        let shelf = self.rack.index.shelf(Role::Memory, reached, brick.site);
        let around = shelf.map_or(0, |shelf| self.free(shelf));
        seen.around.extend(hangs_on.map(|on| (on, around)));
        around
    }
}
