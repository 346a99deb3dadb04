//! Cables side by side: all that connect the same two vertices. A search looks at one of them, the quickest that has room.

use super::{Link, Node};

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
    pub(crate) links: Vec<(u32, Link)>,
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
            self.0.push(Lane { to, switch, dead_end: false, links: Vec::new() });
            self.0.len() - 1
        });
        let links = &mut self.0[at].links;
        let place = links.partition_point(|other| *other < (latency_ns, link));
        links.insert(place, (latency_ns, link));
    }

    pub(super) fn remove(&mut self, link: Link) {
        self.0.iter_mut().for_each(|lane| lane.links.retain(|(_, other)| *other != link));
        self.0.retain(|lane| !lane.links.is_empty());
    }

    pub(super) fn dead_end_set(&mut self, to: Node, dead_end: bool) {
        self.0.iter_mut().filter(|lane| lane.to == to).for_each(|lane| lane.dead_end = dead_end);
    }
}
