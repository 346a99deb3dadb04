//! Ways from one brick to others: by existing circuits, by a direct cable, or through switches with free ports.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::{Brick, Graph, Lane, Link, Node, Path, Site};
use crate::LatencyClass;

/// How the search came to a switch.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    latency_ns: u32,
    by: Link,
    /// The switch before; none if it came from the brick itself.
    before: Option<usize>,
    class: LatencyClass,
}

/// What a search knows of a switch that it has looked at.
#[derive(Clone, Copy, Debug)]
enum Visit {
    InVain,
    Arrived(Arrival),
}

/// The switches that a brick reaches over cables with room, within a class: the shortest way first (Dijkstra).
///
/// It goes no further than what it is asked, so its cost grows neither with the bricks nor with the racks: it stops as soon as it
/// knows how far away bricks can be reached, and goes on when a brick behind a switch is asked for that it has not come to. Dead ends
/// it enters when a brick behind one is asked for.
pub(crate) struct Reach {
    from: Node,
    site: Site,
    class: LatencyClass,
    /// By the switches' ordinals: few of many.
    visits: BTreeMap<usize, Visit>,
    queue: BinaryHeap<Reverse<Step>>,
    widest: LatencyClass,
}

/// A way, as edges of the graph.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) links: Vec<Link>,
    pub(crate) latency_ns: u32,
    pub(crate) class: LatencyClass,
}

/// A step of the search: over a lane to a switch. Ordered by where it leads how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    latency_ns: u32,
    class: LatencyClass,
    /// The lane's quickest cable with room.
    by: Link,
    to: Node,
    /// Ordinal of the switch before.
    before: Option<usize>,
}

impl Graph {
    /// What the brick at `from` reaches within `class` when the cables `taken` are spoken for.
    pub(crate) fn reach(&self, from: Node, class: LatencyClass, taken: &[Link]) -> Reach {
        let site = self.brick_at(from).map(|brick| brick.site).unwrap_or_default();
        let (visits, queue, widest) = (BTreeMap::new(), BinaryHeap::new(), LatencyClass::Local);
        let mut reach = Reach { from, site, class, visits, queue, widest };
        let Some(brick) = self.brick_at(from) else { return reach };
        for lane in brick.lanes.iter() {
            match self.brick_at(lane.to) {
                Some(other) if lane.quickest(taken).is_some() => {
                    reach.sees(site.distance(other.site));
                }
                Some(_) => {}
                None => reach.queue.extend(Step::over(lane, taken, 0, LatencyClass::Tray, None)),
            }
        }
        while reach.widest < class
            && let Some(Reverse(step)) = reach.queue.pop()
        {
            self.advance(&mut reach, step, taken);
        }
        reach
    }

    /// Takes a step of the search.
    fn advance(&self, reach: &mut Reach, step: Step, taken: &[Link]) {
        let Some(switch) = self.switch_at(step.to) else { return };
        let class = step.class.max(reach.site.distance(switch.site));
        if class > reach.class || reach.visits.contains_key(&switch.ordinal) {
            return;
        }
        let Step { latency_ns, by, before, .. } = step;
        reach.visits.insert(switch.ordinal, Visit::Arrived(Arrival { latency_ns, by, before, class }));
        reach.sees_bricks(class, switch.span);
        for lane in switch.trunks.iter() {
            if !lane.dead_end || self.is_beside(reach.from, lane.to) {
                reach.queue.extend(Step::over(lane, taken, latency_ns, class, Some(switch.ordinal)));
            } else if reach.widest < reach.class
                && lane.quickest(taken).is_some()
                && let Some(end) = self.switch_at(lane.to)
            {
                reach.sees_bricks(class.max(reach.site.distance(end.site)), end.span);
            }
        }
    }

    /// Whether a cable leads from the brick straight to the switch.
    fn is_beside(&self, brick: Node, switch: Node) -> bool {
        self.brick_at(brick).is_some_and(|brick| brick.lanes.iter().any(|lane| lane.to == switch))
    }

    /// Goes on with the search until it has come to the switch at `to`, or cannot.
    fn come_to(&self, reach: &mut Reach, to: Node, ordinal: usize, taken: &[Link]) {
        while !reach.visits.contains_key(&ordinal)
            && let Some(Reverse(first)) = reach.queue.peek().copied()
        {
            // Of many that are equally near, as the switches of all racks are, those beside the way need not be looked at.
            let same = |step: &&Step| step.to == to && step.latency_ns == first.latency_ns;
            let straight = reach.queue.iter().map(|Reverse(step)| step).filter(same).min().copied();
            match straight {
                Some(step) => reach.queue.retain(|Reverse(other)| *other != step),
                None => drop(reach.queue.pop()),
            }
            self.advance(reach, straight.unwrap_or(first), taken);
        }
    }

    /// How the search comes to the switch at the end of `lane`, which it may not have come to yet.
    fn arrival(&self, reach: &mut Reach, lane: &Lane, taken: &[Link]) -> Option<Arrival> {
        let ordinal = lane.switch?;
        if !reach.visits.contains_key(&ordinal) {
            match self.switch_at(lane.to)?.trunks.only() {
                Some(trunk) if !self.is_beside(reach.from, lane.to) => {
                    self.come_to(reach, trunk.to, trunk.switch?, taken);
                    let arrival = self.arrival_at_dead_end(reach, lane.to, taken);
                    reach.visits.insert(ordinal, arrival.map_or(Visit::InVain, Visit::Arrived));
                }
                _ => {
                    self.come_to(reach, lane.to, ordinal, taken);
                    reach.visits.entry(ordinal).or_insert(Visit::InVain);
                }
            }
        }
        reach.arrived(ordinal)
    }

    fn arrival_at_dead_end(&self, reach: &Reach, node: Node, taken: &[Link]) -> Option<Arrival> {
        let switch = self.switch_at(node)?;
        let lane = switch.trunks.only()?;
        let before = reach.arrived(lane.switch?)?;
        let (ns, by) = lane.quickest(taken)?;
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
            let (ns, link) = lane.quickest(taken)?;
            Some((class, before_ns.saturating_add(ns), link, at))
        });
        let (class, latency_ns, last, mut at) = ways.min()?;
        let mut links = vec![last];
        while let Some(arrival) = at.and_then(|ordinal| reach.arrived(ordinal)) {
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

impl Step {
    /// How the search goes on over `lane`, if that has room.
    fn over(
        lane: &Lane,
        taken: &[Link],
        before_ns: u32,
        class: LatencyClass,
        before: Option<usize>,
    ) -> Option<Reverse<Self>> {
        let (ns, by) = lane.quickest(taken)?;
        Some(Reverse(Self { latency_ns: before_ns.saturating_add(ns), class, by, to: lane.to, before }))
    }
}

impl Reach {
    fn arrived(&self, ordinal: usize) -> Option<Arrival> {
        match self.visits.get(&ordinal)? {
            Visit::Arrived(arrival) => Some(*arrival),
            Visit::InVain => None,
        }
    }

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
