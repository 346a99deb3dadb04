//! Which bricks: latency-first best fit.
//!
//! In each class, nearest first: the powered brick with the least room that is enough; else as few powered bricks as possible,
//! the fullest-to-be first. Only if no class has it powered is a brick woken: as few as possible, each as small as will do,
//! and what is free on powered bricks is used up beside it, so that no more memory draws power than has to.

use std::collections::BTreeSet;

use crate::graph::{Brick, CircuitEnd, Link, Node, Power, Reach, Role, Route, Site};
use crate::index::Shelf;
use crate::{CircuitId, LatencyClass, Rack};

/// Bricks that one pass over a class tries before it gives up. With free ports on a brick there nearly always is a way to it; where the
/// switches between have run out of ports, a bound keeps one decision below a millisecond. Racks of fewer bricks are searched in full.
const LOOKS_MAX: usize = 256;

/// What is to be placed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need<'a> {
    pub(crate) role: Role,
    /// In the role's unit.
    pub(crate) amount: u64,
    pub(crate) ceiling: LatencyClass,
    /// Over how many bricks.
    pub(crate) spread: usize,
    /// The accelerators' model, if it matters.
    pub(crate) model: Option<&'a str>,
    /// A brick that is no candidate, because it is being emptied.
    pub(crate) not: Option<Node>,
    /// Whether bricks may be woken.
    pub(crate) wake: bool,
}

/// A part of what is to be placed.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) node: Node,
    pub(crate) amount: u64,
    pub(crate) via: Via,
}

/// How the compute brick gets there.
#[derive(Clone, Debug)]
pub(crate) enum Via {
    /// A circuit that is there.
    There(CircuitId),
    /// A circuit that is to be set.
    New(Route),
}

/// A search from one compute brick. It remembers which cables the pieces found so far will take.
pub(crate) struct Search<'a> {
    rack: &'a Rack,
    from: Node,
    site: Site,
    /// Whether new circuits can lead anywhere from the brick.
    open: bool,
    /// The brick's circuits, by the brick at the other end, the nearest way there first.
    there: Vec<&'a CircuitEnd>,
    taken: Vec<Link>,
    reach: Option<Reach>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(rack: &'a Rack, from: Node) -> Self {
        let (site, open) =
            rack.graph.brick_at(from).map(|brick| (brick.site, brick.open)).unwrap_or_default();
        Self {
            rack,
            from,
            site,
            open,
            there: usable_ends(rack, from).collect(),
            taken: Vec::new(),
            reach: None,
        }
    }

    /// The pieces for `need`, or none if it cannot be met.
    pub(crate) fn place(&mut self, need: &Need<'_>) -> Option<Vec<Piece>> {
        if !self.open && free_there(self.rack, self.from, need.role) < need.amount {
            return None;
        }
        let mut stocks = Vec::new();
        for class in need.ceiling.far_up_to() {
            let stock = self.stock(need, class);
            if stock.free_on >= need.amount {
                let found = self.smallest(stock.at_least(need.amount), need.amount, class, need, &[]);
                if let Some(pieces) =
                    found.map(|piece| vec![piece]).or_else(|| self.several(&stock, class, need, 0))
                {
                    return Some(pieces);
                }
            }
            stocks.push((class, stock));
        }
        if !need.wake {
            return None;
        }
        stocks.retain(|(_, stock)| stock.free_on + stock.free_off >= need.amount);
        let asleep = stocks.iter().map(|(_, stock)| stock.asleep()).max().unwrap_or(0);
        for woken in 1..=need.spread.min(asleep) {
            for (class, stock) in &stocks {
                if stock.asleep() < woken {
                    continue;
                }
                if let Some(pieces) = self.several(stock, *class, need, woken) {
                    return Some(pieces);
                }
            }
        }
        None
    }

    /// What there is within `class`, as far away as new circuits reach, and what the compute brick has circuits to.
    fn stock(&mut self, need: &Need<'_>, class: LatencyClass) -> Stock<'a> {
        // In a tray, asking each brick costs less than asking how far circuits reach.
        let mut reached = class;
        if class > LatencyClass::Tray {
            let reach = self.reach_within(class);
            reached = reach.widest();
            self.reach = Some(reach);
        }
        let shelf = self.rack.index.shelf(need.role, reached, self.site);
        let mut stock = Stock { shelf, on: Vec::new(), off: Vec::new(), free_on: 0, free_off: 0 };
        for end in &self.there {
            let Some(brick) = self.rack.graph.brick_at(end.to) else { continue };
            let free = brick.free();
            if end.class > class || brick.role() != need.role || !brick.takes_more() || free == 0 {
                continue;
            }
            let (off, on_shelf) = (brick.power() == Power::Off, self.site.distance(brick.site) <= reached);
            if !on_shelf || !(off || brick.open) {
                if off { &mut stock.off } else { &mut stock.on }.push((free, end.to));
            }
        }
        for (bricks, sum) in [(&mut stock.on, &mut stock.free_on), (&mut stock.off, &mut stock.free_off)] {
            bricks.sort_unstable();
            bricks.dedup();
            *sum = bricks.iter().map(|(free, _)| free).sum();
        }
        stock.free_on += shelf.map_or(0, |shelf| shelf.free_on);
        stock.free_off += shelf.map_or(0, |shelf| shelf.free_off);
        stock
    }

    /// The first that can be used of bricks that have room enough, the least room first. Its cables are then taken.
    fn smallest(
        &mut self,
        bricks: impl Iterator<Item = (u64, Node)>,
        amount: u64,
        class: LatencyClass,
        need: &Need<'_>,
        besides: &[Piece],
    ) -> Option<Piece> {
        let mut fresh =
            bricks.filter(|(_, node)| besides.iter().all(|piece| piece.node != *node)).take(LOOKS_MAX);
        let (node, via) = fresh.find_map(|(_, node)| Some((node, self.candidate(node, class, need)?)))?;
        self.take(&via);
        Some(Piece { node, amount, via })
    }

    /// Pieces on at most `need.spread` bricks, `woken` of them woken; the cables of what is found are then taken.
    fn several(
        &mut self,
        stock: &Stock<'_>,
        class: LatencyClass,
        need: &Need<'_>,
        woken: usize,
    ) -> Option<Vec<Piece>> {
        let before = self.taken.len();
        let pieces = self.gather(stock, class, need, woken);
        if pieces.is_none() && self.taken.len() > before {
            self.taken.truncate(before);
            self.reach = None;
        }
        pieces
    }

    fn gather(
        &mut self,
        stock: &Stock<'_>,
        class: LatencyClass,
        need: &Need<'_>,
        woken: usize,
    ) -> Option<Vec<Piece>> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut left = need.amount;
        let powered = need.spread - woken;
        for (free, node) in stock.largest_first().take(LOOKS_MAX) {
            let slots = (powered - pieces.len()) as u64;
            // What follows is no larger: if even that many of this size do not help, nothing will.
            if slots == 0 || (woken == 0 && free.saturating_mul(slots) < left) {
                break;
            }
            if free >= left && !pieces.is_empty() {
                // The last piece goes where it leaves the least behind.
                let last = self.smallest(stock.at_least(left), left, class, need, &pieces);
                if last.is_some() {
                    pieces.extend(last);
                    return Some(pieces);
                }
            }
            left -= self.add(&mut pieces, (free, node), left, class, need);
            if left == 0 {
                return Some(pieces);
            }
        }
        for still in (1..=woken).rev() {
            if still == 1 {
                pieces.push(self.smallest(stock.asleep_at_least(left), left, class, need, &pieces)?);
                return Some(pieces);
            }
            let asleep = stock.asleep_largest_first().take(LOOKS_MAX);
            let mut fresh = asleep.filter(|(_, node)| pieces.iter().all(|piece| piece.node != *node));
            let largest = fresh.find(|(_, node)| self.candidate(*node, class, need).is_some())?;
            drop(fresh);
            left -= self.add(&mut pieces, largest, left, class, need);
            if left == 0 {
                return Some(pieces);
            }
        }
        None
    }

    /// Adds a piece on a brick, if it can be used, and gives how much that is.
    fn add(
        &mut self,
        pieces: &mut Vec<Piece>,
        (free, node): (u64, Node),
        left: u64,
        class: LatencyClass,
        need: &Need<'_>,
    ) -> u64 {
        let Some(via) = self.candidate(node, class, need) else { return 0 };
        self.take(&via);
        let amount = free.min(left);
        pieces.push(Piece { node, amount, via });
        amount
    }

    fn candidate(&mut self, node: Node, class: LatencyClass, need: &Need<'_>) -> Option<Via> {
        let brick = self.rack.graph.brick_at(node)?;
        if Some(node) == need.not || need.model.is_some_and(|model| !offers_model(brick, model)) {
            return None;
        }
        self.via(node, class)
    }

    /// How to get to `node` within `class`: over a circuit that is there, else over free cables.
    pub(crate) fn via(&mut self, node: Node, class: LatencyClass) -> Option<Via> {
        let first = self.there.partition_point(|end| end.to < node);
        match self.there.get(first) {
            Some(end) if end.to == node && end.class <= class => return Some(Via::There(end.id)),
            _ => {}
        }
        let mut reach = self.reach_within(class);
        let route = self.rack.graph.route(&mut reach, node, &self.taken);
        self.reach = Some(reach);
        route.map(Via::New)
    }

    /// What new circuits reach within `class`; to be put back.
    fn reach_within(&mut self, class: LatencyClass) -> Reach {
        let known = self.reach.take().filter(|reach| reach.class() == class);
        known.unwrap_or_else(|| self.rack.graph.reach(self.from, class, &self.taken))
    }

    /// Speaks for the cables of `via`.
    pub(crate) fn take(&mut self, via: &Via) {
        if let Via::New(route) = via {
            let exclusive = |link: &&Link| self.rack.graph.cable(**link).is_some_and(|cable| !cable.shared);
            let before = self.taken.len();
            self.taken.extend(route.links.iter().filter(exclusive));
            if self.taken.len() > before {
                self.reach = None;
            }
        }
    }
}

/// What is free, or could be woken, on the bricks of that role that `from` has circuits to.
pub(super) fn free_there(rack: &Rack, from: Node, role: Role) -> u64 {
    let bricks = usable_ends(rack, from).filter_map(|end| rack.graph.brick_at(end.to));
    bricks.filter(|brick| brick.role() == role && brick.takes_more()).map(Brick::free).sum()
}

/// The circuits of a brick that a further reservation may use.
fn usable_ends(rack: &Rack, from: Node) -> impl Iterator<Item = &CircuitEnd> {
    rack.graph.circuit_ends(from).filter(|end| end.usable)
}

/// What there is within a class: a shelf, and beside it bricks that the compute brick has a circuit to and that are not on it.
struct Stock<'a> {
    shelf: Option<&'a Shelf>,
    /// Beside the shelf's, ascending.
    on: Vec<(u64, Node)>,
    /// Beside the shelf's, ascending.
    off: Vec<(u64, Node)>,
    /// Free on all that are powered.
    free_on: u64,
    /// Free on all that could be woken.
    free_off: u64,
}

type Room = (u64, Node);

impl Stock<'_> {
    /// Powered bricks with so much room, the least first.
    fn at_least(&self, amount: u64) -> impl Iterator<Item = Room> {
        at_least(self.shelf.map(|shelf| &shelf.on), &self.on, amount)
    }

    /// Powered bricks, the one with most room first.
    fn largest_first(&self) -> impl Iterator<Item = Room> {
        largest_first(self.shelf.map(|shelf| &shelf.on), &self.on)
    }

    /// Bricks that could be woken with so much room, the least first.
    fn asleep_at_least(&self, amount: u64) -> impl Iterator<Item = Room> {
        at_least(self.shelf.map(|shelf| &shelf.off), &self.off, amount)
    }

    /// Bricks that could be woken, the one with most room first.
    fn asleep_largest_first(&self) -> impl Iterator<Item = Room> {
        largest_first(self.shelf.map(|shelf| &shelf.off), &self.off)
    }

    /// How many could be woken.
    fn asleep(&self) -> usize {
        self.off.len() + self.shelf.map_or(0, |shelf| shelf.off.len())
    }
}

fn at_least(shelf: Option<&BTreeSet<Room>>, beside: &[Room], amount: u64) -> impl Iterator<Item = Room> {
    let shelf = shelf.into_iter().flat_map(move |set| set.range((amount, Node::new(0))..)).copied();
    let beside = beside.iter().copied().filter(move |(free, _)| *free >= amount);
    merge(shelf, beside, |a, b| a < b)
}

fn largest_first(shelf: Option<&BTreeSet<Room>>, beside: &[Room]) -> impl Iterator<Item = Room> {
    let shelf = shelf.into_iter().flat_map(|set| set.iter().rev()).copied();
    merge(shelf, beside.iter().rev().copied(), |a, b| a > b)
}

/// Two sorted sequences as one.
fn merge<T: Copy>(
    a: impl Iterator<Item = T>,
    b: impl Iterator<Item = T>,
    before: impl Fn(T, T) -> bool,
) -> impl Iterator<Item = T> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek().copied(), b.peek().copied()) {
        (Some(x), Some(y)) if before(y, x) => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}

/// Whether the brick offers accelerators of that model.
pub(crate) fn offers_model(brick: &Brick, model: &str) -> bool {
    matches!(&brick.spec().offers, crate::Offer::Accelerator { model: is, .. } if is == model)
}
