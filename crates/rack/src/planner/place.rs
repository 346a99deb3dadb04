//! Which bricks: latency-first best fit.
//!
//! In each class, nearest first: the powered brick with the least room that is enough; else as few powered bricks as possible,
//! the fullest-to-be first. Only if no class has it powered is a brick woken: as few as possible, each as small as will do,
//! and what is free on powered bricks is used up beside it, so that no more memory draws power than has to.

use super::stock::Stock;
use crate::graph::{Brick, CircuitEnd, Link, Node, Power, Reach, Role, Route, Site};
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
        self.or_give_back(|search| search.gather(stock, class, need, woken))
    }

    /// What `find` finds; if that is nothing, the cables that it took are free again.
    fn or_give_back<T>(&mut self, find: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let before = self.taken.len();
        let found = find(self);
        if found.is_none() {
            self.give_back(before);
        }
        found
    }

    /// Frees all but the first `kept` of the cables that are taken.
    fn give_back(&mut self, kept: usize) {
        if self.taken.len() > kept {
            self.taken.truncate(kept);
            self.reach = None;
        }
    }

    fn gather(
        &mut self,
        stock: &Stock<'_>,
        class: LatencyClass,
        need: &Need<'_>,
        woken: usize,
    ) -> Option<Vec<Piece>> {
        let mut pieces: Vec<Piece> = Vec::new();
        // How many cables were taken before each piece.
        let mut taken = Vec::new();
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
            let before = self.taken.len();
            left -= self.add(&mut pieces, (free, node), left, class, need);
            taken.resize(pieces.len(), before);
            if left == 0 {
                return Some(pieces);
            }
        }
        if woken == 0 {
            return None;
        }
        // Powered bricks may have taken the last ways to those that sleep: the last one is done without, until it is enough.
        let most: u64 = stock.asleep_largest_first().take(woken).map(|(free, _)| free).sum();
        while left <= most {
            if let Some(more) = self.or_give_back(|search| search.wake(stock, left, class, need, woken)) {
                pieces.extend(more);
                return Some(pieces);
            }
            left += pieces.pop()?.amount;
            self.give_back(taken.pop()?);
        }
        None
    }

    /// Pieces of `left` on at most `woken` bricks that sleep: the largest, and last the least that will do.
    fn wake(
        &mut self,
        stock: &Stock<'_>,
        mut left: u64,
        class: LatencyClass,
        need: &Need<'_>,
        woken: usize,
    ) -> Option<Vec<Piece>> {
        let mut pieces = Vec::new();
        while pieces.len() + 1 < woken {
            let asleep = stock.asleep_largest_first().take(LOOKS_MAX);
            let mut fresh = asleep.filter(|(_, node)| pieces.iter().all(|piece: &Piece| piece.node != *node));
            let largest = fresh.find(|(_, node)| self.candidate(*node, class, need).is_some())?;
            drop(fresh);
            left -= self.add(&mut pieces, largest, left, class, need);
            if left == 0 {
                return Some(pieces);
            }
        }
        pieces.push(self.smallest(stock.asleep_at_least(left), left, class, need, &pieces)?);
        Some(pieces)
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

/// Whether the brick offers accelerators of that model.
pub(crate) fn offers_model(brick: &Brick, model: &str) -> bool {
    matches!(&brick.spec().offers, crate::Offer::Accelerator { model: is, .. } if is == model)
}
