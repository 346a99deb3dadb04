//! Ways from one brick to others: by existing circuits, by a direct cable, or through switches with free ports.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Brick, Graph, Lane, Link, Node, Path, Site};
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

/// What a search knows of a switch.
#[derive(Clone, Copy)]
enum Visit {
    NotYet,
    InVain,
    Arrived(Arrival),
}

/// The switches that a brick reaches over cables with room, within a class: the shortest way first (Dijkstra). Its cost grows with
/// the switches that join others in that class, and not with the bricks: dead ends are looked at when a brick behind one is asked for.
pub(crate) struct Reach {
    from: Node,
    site: Site,
    class: LatencyClass,
    visits: Vec<Visit>,
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
        let visits = vec![Visit::NotYet; self.switches];
        let mut reach = Reach { from, site, class, visits, widest: LatencyClass::Local };
        let Some(brick) = self.brick_at(from) else { return reach };
        let mut queue: BinaryHeap<Reverse<Step>> = BinaryHeap::new();
        for lane in brick.lanes.iter() {
            let Some((ns, link)) = self.with_room(lane, taken) else { continue };
            match self.brick_at(lane.to) {
                Some(other) => reach.sees(site.distance(other.site)),
                None => queue.push(Reverse((ns, LatencyClass::Tray, link, lane.to, None))),
            }
        }
        while let Some(Reverse((latency_ns, class_before, by, node, before))) = queue.pop() {
            let Some(switch) = self.switch_at(node) else { continue };
            let class_here = class_before.max(site.distance(switch.site));
            if class_here > class || !matches!(reach.visits[switch.ordinal], Visit::NotYet) {
                continue;
            }
            reach.visits[switch.ordinal] =
                Visit::Arrived(Arrival { latency_ns, by, before, class: class_here });
            reach.sees_bricks(class_here, switch.span);
            for lane in switch.trunks.iter() {
                let enters = !lane.dead_end || brick.lanes.iter().any(|own| own.to == lane.to);
                if !enters && reach.widest == class {
                    continue;
                }
                let Some((ns, link)) = self.with_room(lane, taken) else { continue };
                if enters {
                    let latency_ns = latency_ns.saturating_add(ns);
                    queue.push(Reverse((latency_ns, class_here, link, lane.to, Some(switch.ordinal))));
                } else if let Some(end) = self.switch_at(lane.to) {
                    reach.sees_bricks(class_here.max(site.distance(end.site)), end.span);
                }
            }
        }
        reach
    }

    /// The quickest cable of a lane that has room.
    fn with_room(&self, lane: &Lane, taken: &[Link]) -> Option<(u32, Link)> {
        lane.links.iter().copied().find(|(_, link)| {
            self.cable(*link).is_some_and(|cable| cable.has_room() && (cable.shared || !taken.contains(link)))
        })
    }

    /// How the search comes to the switch at the end of `lane`, which may be a dead end that it has not looked at yet.
    fn arrival(&self, reach: &mut Reach, lane: &Lane, taken: &[Link]) -> Option<Arrival> {
        let ordinal = lane.switch?;
        if let Visit::NotYet = reach.visits[ordinal] {
            let arrival = self.arrival_at_dead_end(reach, lane.to, taken);
            reach.visits[ordinal] = arrival.map_or(Visit::InVain, Visit::Arrived);
        }
        match reach.visits[ordinal] {
            Visit::Arrived(arrival) => Some(arrival),
            Visit::NotYet | Visit::InVain => None,
        }
    }

    fn arrival_at_dead_end(&self, reach: &Reach, node: Node, taken: &[Link]) -> Option<Arrival> {
        let switch = self.switch_at(node)?;
        let lane = switch.trunks.only()?;
        let Visit::Arrived(before) = reach.visits[lane.switch?] else { return None };
        let (ns, by) = self.with_room(lane, taken)?;
        let class = before.class.max(reach.site.distance(switch.site));
        let latency_ns = before.latency_ns.saturating_add(ns);
        (class <= reach.class).then_some(Arrival { latency_ns, by, before: lane.switch, class })
    }

    /// The shortest new way from the brick that `reach` is of to the brick at `to`.
    pub(crate) fn route(&self, reach: &mut Reach, to: Node, taken: &[Link]) -> Option<Route> {
        let brick = self.brick_at(to)?;
        let distance = reach.site.distance(brick.site);
        if distance > reach.widest {
            return None;
        }
        let ways = brick.lanes.iter().filter_map(|lane| {
            let (before_ns, class, at) = if lane.to == reach.from {
                (0, distance, None)
            } else {
                let arrival = self.arrival(reach, lane, taken)?;
                (arrival.latency_ns, distance.max(arrival.class), lane.switch)
            };
            let (ns, link) = self.with_room(lane, taken)?;
            Some((class, before_ns.saturating_add(ns), link, at))
        });
        let (class, latency_ns, last, mut at) = ways.min()?;
        let mut links = vec![last];
        while let Some(Visit::Arrived(arrival)) = at.map(|ordinal| reach.visits[ordinal]) {
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

impl Reach {
    /// The class within which it was looked.
    pub(crate) fn class(&self) -> LatencyClass {
        self.class
    }

    /// No brick farther away than this can be reached; `local` if none can.
    pub(crate) fn widest(&self) -> LatencyClass {
        self.widest
    }

    /// A brick at that distance can be reached, if it is within the class.
    fn sees(&mut self, distance: LatencyClass) {
        if distance <= self.class {
            self.widest = self.widest.max(distance);
        }
    }

    /// Bricks of a switch that is `distance` away can be reached; `span` says how far from it they stand.
    fn sees_bricks(&mut self, distance: LatencyClass, span: Option<LatencyClass>) {
        if let Some(span) = span.filter(|_| distance <= self.class) {
            self.widest = self.widest.max(distance.max(span).min(self.class));
        }
    }
}
