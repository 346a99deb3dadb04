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
/// knows how far away bricks can be reached, and goes on when a brick behind a switch is asked for that it has not come to. Whether
/// a lane has room is looked at when the search comes to its end, and dead ends when a brick behind one is asked for.
pub(crate) struct Reach<'a> {
    from: Node,
    site: Site,
    class: LatencyClass,
    /// By the switches' ordinals: few of many.
    visits: BTreeMap<usize, Visit>,
    queue: BinaryHeap<Reverse<Step<'a>>>,
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
struct Step<'a> {
    latency_ns: u32,
    class: LatencyClass,
    /// The lane's quickest cable, or the quickest with room once that was looked at.
    by: Link,
    to: Node,
    /// Ordinal of the switch before.
    before: Option<usize>,
    /// Latency at the lane's beginning, and the lane; none once it is known that `by` has room.
    lane: Option<(u32, &'a Lane)>,
}

impl Graph {
    /// What the brick at `from` reaches within `class` when the cables `taken` are spoken for.
    pub(crate) fn reach(&self, from: Node, class: LatencyClass, taken: &[Link]) -> Reach<'_> {
        let site = self.brick_at(from).map(|brick| brick.site).unwrap_or_default();
        let (visits, queue, widest) = (BTreeMap::new(), BinaryHeap::new(), LatencyClass::Local);
        let mut reach = Reach { from, site, class, visits, queue, widest };
        let Some(brick) = self.brick_at(from) else { return reach };
        for lane in brick.lanes.iter() {
            match self.brick_at(lane.to) {
                Some(other) if self.with_room(lane, taken).is_some() => {
                    reach.sees(site.distance(other.site));
                }
                Some(_) => {}
                None => reach.queue.extend(Step::over(lane, 0, LatencyClass::Tray, None)),
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
    fn advance<'a>(&'a self, reach: &mut Reach<'a>, step: Step<'a>, taken: &[Link]) {
        let Some(switch) = self.switch_at(step.to) else { return };
        let class = step.class.max(reach.site.distance(switch.site));
        if class > reach.class || reach.visits.contains_key(&switch.ordinal) {
            return;
        }
        if let Some((before_ns, lane)) = step.lane {
            let Some((ns, by)) = self.with_room(lane, taken) else { return };
            let looked_at = Step { latency_ns: before_ns.saturating_add(ns), by, lane: None, ..step };
            if by != step.by {
                // Its quickest cable is taken: others may come first now.
                return reach.queue.push(Reverse(looked_at));
            }
        }
        let Step { latency_ns, by, before, .. } = step;
        reach.visits.insert(switch.ordinal, Visit::Arrived(Arrival { latency_ns, by, before, class }));
        reach.sees_bricks(class, switch.span);
        for lane in switch.trunks.iter() {
            if !lane.dead_end || self.is_beside(reach.from, lane.to) {
                reach.queue.extend(Step::over(lane, latency_ns, class, Some(switch.ordinal)));
            } else if reach.widest < reach.class
                && self.with_room(lane, taken).is_some()
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
    fn come_to<'a>(&'a self, reach: &mut Reach<'a>, to: Node, ordinal: usize, taken: &[Link]) {
        while !reach.visits.contains_key(&ordinal)
            && let Some(Reverse(first)) = reach.queue.peek().copied()
        {
            // Of many that are equally near, as the switches of all racks are, those beside the way need not be looked at.
            let same = |step: &&Step<'_>| step.to == to && step.latency_ns == first.latency_ns;
            let straight = reach.queue.iter().map(|Reverse(step)| step).filter(same).min().copied();
            match straight {
                Some(step) => reach.queue.retain(|Reverse(other)| *other != step),
                None => drop(reach.queue.pop()),
            }
            self.advance(reach, straight.unwrap_or(first), taken);
        }
    }

    /// The quickest cable of a lane that has room.
    fn with_room(&self, lane: &Lane, taken: &[Link]) -> Option<(u32, Link)> {
        lane.links.iter().copied().find(|(_, link)| {
            self.cable(*link).is_some_and(|cable| cable.has_room() && (cable.shared || !taken.contains(link)))
        })
    }

    /// How the search comes to the switch at the end of `lane`, which it may not have come to yet.
    fn arrival<'a>(&'a self, reach: &mut Reach<'a>, lane: &Lane, taken: &[Link]) -> Option<Arrival> {
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

    fn arrival_at_dead_end(&self, reach: &Reach<'_>, node: Node, taken: &[Link]) -> Option<Arrival> {
        let switch = self.switch_at(node)?;
        let lane = switch.trunks.only()?;
        let before = reach.arrived(lane.switch?)?;
        let (ns, by) = self.with_room(lane, taken)?;
        let class = before.class.max(reach.site.distance(switch.site));
        let latency_ns = before.latency_ns.saturating_add(ns);
        (class <= reach.class).then_some(Arrival { latency_ns, by, before: lane.switch, class })
    }

    /// The shortest new way from the brick that `reach` is of to the brick at `to`.
    pub(crate) fn route<'a>(&'a self, reach: &mut Reach<'a>, to: Node, taken: &[Link]) -> Option<Route> {
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

impl<'a> Step<'a> {
    /// The step over `lane`, before it is known which of its cables has room.
    fn over(
        lane: &'a Lane,
        latency_ns: u32,
        class: LatencyClass,
        before: Option<usize>,
    ) -> Option<Reverse<Self>> {
        let (ns, by) = *lane.links.first()?;
        let (to, from) = (lane.to, Some((latency_ns, lane)));
        let latency_ns = latency_ns.saturating_add(ns);
        Some(Reverse(Self { latency_ns, class, by, to, before, lane: from }))
    }
}

impl Reach<'_> {
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
