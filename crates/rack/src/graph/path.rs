//! Ways from one brick to others: by existing circuits, by a direct cable, or through switches with free ports.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Brick, Graph, Link, Node, Path, Site};
use crate::LatencyClass;

/// How the search came to a switch.
#[derive(Clone, Copy)]
struct Arrival {
    latency_ns: u32,
    by: Link,
    /// The switch before; none if it came from the brick itself.
    before: Option<usize>,
    class: LatencyClass,
}

/// Every switch that a brick reaches over cables with room, within a class: the shortest way first (Dijkstra, over switches only,
/// so that its cost grows with the switches in that class and not with the bricks).
pub(crate) struct Reach {
    from: Node,
    site: Site,
    arrivals: Vec<Option<Arrival>>,
    /// The widest class in which it reached anything, a brick by a direct cable included; `local` if all ports are taken.
    widest: LatencyClass,
}

/// A way, as edges of the graph.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) links: Vec<Link>,
    pub(crate) latency_ns: u32,
    pub(crate) class: LatencyClass,
}

/// An entry of the search's queue: (latency, class, cable, switch, ordinal of the switch before).
type Step = (u32, LatencyClass, Link, Node, Option<usize>);

impl Graph {
    /// What the brick at `from` reaches within `class` when the cables `taken` are spoken for.
    pub(crate) fn reach(&self, from: Node, class: LatencyClass, taken: &[Link]) -> Reach {
        let site = self.brick_at(from).map(|brick| brick.site).unwrap_or_default();
        let mut arrivals: Vec<Option<Arrival>> = vec![None; self.switches];
        let mut queue: BinaryHeap<Reverse<Step>> = BinaryHeap::new();
        let mut widest = LatencyClass::Local;
        let ports = self.brick_at(from).map_or(&[][..], |brick| &brick.ports);
        for (link, node, ns) in ports.iter().flatten().filter_map(|link| self.onward(*link, from, taken)) {
            match self.brick_at(node) {
                Some(other) => widest = widest.max(site.distance(other.site)),
                None => queue.push(Reverse((ns, LatencyClass::Tray, link, node, None))),
            }
        }
        while let Some(Reverse((latency_ns, class_before, by, node, before))) = queue.pop() {
            let Some(switch) = self.switch_at(node) else { continue };
            let class_here = class_before.max(site.distance(switch.site));
            if class_here > class || arrivals[switch.ordinal].is_some() {
                continue;
            }
            widest = widest.max(class_here);
            arrivals[switch.ordinal] = Some(Arrival { latency_ns, by, before, class: class_here });
            let onward = switch.trunks.iter().filter_map(|(_, links)| {
                let ways = links.iter().filter_map(|link| self.onward(*link, node, taken));
                ways.min_by_key(|(link, _, latency_ns)| (*latency_ns, *link))
            });
            queue.extend(onward.map(|(link, next, ns)| {
                Reverse((latency_ns.saturating_add(ns), class_here, link, next, Some(switch.ordinal)))
            }));
        }
        Reach { from, site, arrivals, widest }
    }

    /// Over `link` away from `node`, if the cable has room: the cable, where it leads, its latency.
    fn onward(&self, link: Link, node: Node, taken: &[Link]) -> Option<(Link, Node, u32)> {
        let cable = self.cable(link)?;
        if !cable.has_room() || (!cable.shared && taken.contains(&link)) {
            return None;
        }
        let (a, b) = self.inner.edge_endpoints(link)?;
        Some((link, if a == node { b } else { a }, cable.spec.latency_ns))
    }

    /// The shortest new way from the brick that `reach` is of to the brick at `to`, no wider than `class`.
    pub(crate) fn route(
        &self,
        reach: &Reach,
        to: Node,
        class: LatencyClass,
        taken: &[Link],
    ) -> Option<Route> {
        let brick = self.brick_at(to)?;
        let distance = reach.site.distance(brick.site);
        if distance > class || reach.widest == LatencyClass::Local {
            return None;
        }
        let best = brick
            .ports
            .iter()
            .flatten()
            .filter_map(|link| self.onward(*link, to, taken))
            .filter_map(|(link, next, ns)| {
                if next == reach.from {
                    return Some((ns, distance, link, None));
                }
                let ordinal = self.switch_at(next)?.ordinal;
                let arrival = reach.arrivals[ordinal]?;
                Some((
                    arrival.latency_ns.saturating_add(ns),
                    distance.max(arrival.class),
                    link,
                    Some(ordinal),
                ))
            })
            .min_by_key(|(latency_ns, class, link, _)| (*class, *latency_ns, *link))?;
        let (latency_ns, class, last, mut at) = best;
        let mut links = vec![last];
        while let Some(arrival) = at.and_then(|ordinal| reach.arrivals[ordinal]) {
            links.push(arrival.by);
            at = arrival.before;
        }
        links.reverse();
        Some(Route { links, latency_ns, class })
    }

    /// The route from the brick at `from`, by its ports.
    pub(crate) fn path(&self, from: Node, route: &Route) -> Path {
        let mut at = from;
        let mut mbps = u32::MAX;
        let mut cables = Vec::with_capacity(route.links.len());
        for &link in &route.links {
            let (Some(cable), Some((a, b))) = (self.cable(link), self.inner.edge_endpoints(link)) else {
                continue;
            };
            let name = self.inner[at].name();
            cables.push([cable.near_end(name).clone(), cable.far_end(name).clone()]);
            mbps = mbps.min(cable.spec.mbps);
            at = if a == at { b } else { a };
        }
        Path { cables, latency_ns: route.latency_ns, mbps, class: route.class }
    }

    /// Whether a cable of `brick` has room for a further circuit.
    pub(crate) fn has_free_port(&self, brick: &Brick) -> bool {
        brick.ports.iter().flatten().any(|link| self.cable(*link).is_some_and(super::Cable::has_room))
    }
}
