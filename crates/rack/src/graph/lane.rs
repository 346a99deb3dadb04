//! What a search asks of a vertex, kept beside it: its cables, and a brick's circuits.
//!
//! Cables side by side, all that connect the same two vertices, are a lane. A search looks at one of them, the quickest that has room.

use super::{Link, Node};
use crate::{CircuitId, LatencyClass};

/// A circuit as one of its bricks sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CircuitEnd {
    /// The brick at the other end.
    pub(crate) to: Node,
    /// Its latency class.
    pub(crate) class: LatencyClass,
    /// Its number.
    pub(crate) id: CircuitId,
    /// Its edge.
    pub(super) link: Link,
    /// Whether a further reservation may use it.
    pub(crate) usable: bool,
}

/// The cables from a vertex to one of its neighbours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane {
    /// The neighbour.
    pub(crate) to: Node,
    /// The neighbour's number among the switches, if it is one.
    pub(crate) switch: Option<usize>,
    /// The neighbour is a switch without a lane to a third: no way leads on through it, so a search need not enter it.
    pub(crate) dead_end: bool,
    /// The cables with their latencies, the quickest first.
    links: Vec<(u32, Link)>,
    /// Those of them that have room.
    with_room: Vec<(u32, Link)>,
}

impl Lane {
    /// The quickest cable that has room and is not among `taken`, with its latency.
    pub(crate) fn quickest(&self, taken: &[Link]) -> Option<(u32, Link)> {
        self.with_room.iter().copied().find(|(_, link)| !taken.contains(link))
    }
}

/// All lanes of a vertex.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lanes(Vec<Lane>);

impl Lanes {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.0.iter()
    }

    /// The lane of a vertex that has but one.
    pub(crate) fn only(&self) -> Option<&Lane> {
        match self.0.as_slice() {
            [lane] => Some(lane),
            _ => None,
        }
    }

    pub(super) fn add(&mut self, to: Node, switch: Option<usize>, latency_ns: u32, link: Link) {
        let at = self.0.iter().position(|lane| lane.to == to).unwrap_or_else(|| {
            let (links, with_room) = Default::default();
            self.0.push(Lane { to, switch, dead_end: false, links, with_room });
            self.0.len() - 1
        });
        let lane = &mut self.0[at];
        for links in [&mut lane.links, &mut lane.with_room] {
            let place = links.partition_point(|other| *other < (latency_ns, link));
            links.insert(place, (latency_ns, link));
        }
    }

    /// Notes whether a cable has room.
    pub(super) fn room_set(&mut self, link: Link, room: bool) {
        for lane in &mut self.0 {
            let Some(found) = lane.links.iter().copied().find(|(_, other)| *other == link) else { continue };
            match (lane.with_room.binary_search(&found), room) {
                (Ok(place), false) => drop(lane.with_room.remove(place)),
                (Err(place), true) => lane.with_room.insert(place, found),
                _ => {}
            }
        }
    }

    /// Whether the cables that are said to have room are those of which `has_room` is true.
    pub(crate) fn are_true(&self, has_room: impl Fn(Link) -> bool) -> bool {
        self.0.iter().all(|lane| lane.links.iter().filter(|(_, link)| has_room(*link)).eq(&lane.with_room))
    }

    pub(super) fn remove(&mut self, link: Link) {
        for lane in &mut self.0 {
            lane.links.retain(|(_, other)| *other != link);
            lane.with_room.retain(|(_, other)| *other != link);
        }
        self.0.retain(|lane| !lane.links.is_empty());
    }

    pub(super) fn dead_end_set(&mut self, to: Node, dead_end: bool) {
        self.0.iter_mut().filter(|lane| lane.to == to).for_each(|lane| lane.dead_end = dead_end);
    }
}
