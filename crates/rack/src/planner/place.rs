//! Which bricks: latency-first best fit.
//!
//! In each class, nearest first: the powered brick with the least room that is enough; else as few powered bricks as possible,
//! the fullest-to-be first. Only if no class has it powered is a brick woken: as few as possible, each as small as will do,
//! and what is free on powered bricks is used up beside it, so that no more memory draws power than has to.

use std::collections::BTreeSet;

use crate::graph::{Brick, CircuitState, Link, Node, Reach, Role, Route, Site};
use crate::index::Shelf;
use crate::{CircuitId, LatencyClass, Rack};

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
    /// The brick's circuits, by the brick at the other end.
    there: Vec<(Node, LatencyClass, CircuitId)>,
    taken: Vec<Link>,
    reach: Option<(LatencyClass, Reach)>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(rack: &'a Rack, from: Node) -> Self {
        let site = rack.graph.brick_at(from).map(|brick| brick.site).unwrap_or_default();
        let usable = rack.graph.circuits_of(from).filter(|(_, circuit)| circuit.state != CircuitState::Down);
        let mut there: Vec<_> =
            usable.map(|(node, circuit)| (node, circuit.path.class, circuit.id)).collect();
        there.sort_unstable();
        Self { rack, from, site, there, taken: Vec::new(), reach: None }
    }

    /// The pieces for `need`, or none if it cannot be met.
    pub(crate) fn place(&mut self, need: &Need<'_>) -> Option<Vec<Piece>> {
        for class in need.ceiling.far_up_to() {
            let Some(shelf) = self.rack.index.shelf(need.role, class, self.site) else { continue };
            if shelf.free_on < need.amount {
                continue;
            }
            let found = self.smallest(&shelf.on, need.amount, class, need, &[]).map(|piece| vec![piece]);
            if let Some(pieces) = found.or_else(|| self.several(shelf, class, need, 0)) {
                return Some(pieces);
            }
        }
        if !need.wake {
            return None;
        }
        for woken in 1..=need.spread {
            for class in need.ceiling.far_up_to() {
                let Some(shelf) = self.rack.index.shelf(need.role, class, self.site) else { continue };
                if shelf.free_on + shelf.free_off < need.amount {
                    continue;
                }
                if let Some(pieces) = self.several(shelf, class, need, woken) {
                    return Some(pieces);
                }
            }
        }
        None
    }

    /// The brick of `set` with the least room that is enough, as a piece. Its cables are then taken.
    fn smallest(
        &mut self,
        set: &BTreeSet<(u64, Node)>,
        amount: u64,
        class: LatencyClass,
        need: &Need<'_>,
        besides: &[Piece],
    ) -> Option<Piece> {
        let (node, via) = set.range((amount, Node::new(0))..).find_map(|&(_, node)| {
            let fresh = besides.iter().all(|piece| piece.node != node);
            let via = if fresh { self.candidate(node, class, need) } else { None };
            via.map(|via| (node, via))
        })?;
        self.take(&via);
        Some(Piece { node, amount, via })
    }

    /// Pieces on at most `need.spread` bricks, `woken` of them woken; the cables of what is found are then taken.
    fn several(
        &mut self,
        shelf: &Shelf,
        class: LatencyClass,
        need: &Need<'_>,
        woken: usize,
    ) -> Option<Vec<Piece>> {
        let before = self.taken.len();
        let pieces = self.gather(shelf, class, need, woken);
        if pieces.is_none() && self.taken.len() > before {
            self.taken.truncate(before);
            self.reach = None;
        }
        pieces
    }

    fn gather(
        &mut self,
        shelf: &Shelf,
        class: LatencyClass,
        need: &Need<'_>,
        woken: usize,
    ) -> Option<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut left = need.amount;
        let powered = need.spread - woken;
        for &(free, node) in shelf.on.iter().rev() {
            let slots = (powered - pieces.len()) as u64;
            // What follows is no larger: if even that many of this size do not help, nothing will.
            if slots == 0 || (woken == 0 && free.saturating_mul(slots) < left) {
                break;
            }
            if free >= left && !pieces.is_empty() {
                // The last piece goes where it leaves the least behind.
                if let Some(last) = self.smallest(&shelf.on, left, class, need, &pieces) {
                    pieces.push(last);
                    return Some(pieces);
                }
            }
            let Some(via) = self.candidate(node, class, need) else { continue };
            self.take(&via);
            pieces.push(Piece { node, amount: free.min(left), via });
            left -= free.min(left);
            if left == 0 {
                return Some(pieces);
            }
        }
        for still in (1..=woken).rev() {
            if still == 1 {
                pieces.push(self.smallest(&shelf.off, left, class, need, &pieces)?);
                return Some(pieces);
            }
            let largest =
                shelf.off.iter().rev().filter(|(_, node)| pieces.iter().all(|piece| piece.node != *node));
            let (free, node, via) = largest
                .copied()
                .find_map(|(free, node)| Some((free, node, self.candidate(node, class, need)?)))?;
            self.take(&via);
            pieces.push(Piece { node, amount: free.min(left), via });
            left -= free.min(left);
            if left == 0 {
                return Some(pieces);
            }
        }
        None
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
        let first = self.there.partition_point(|(other, ..)| *other < node);
        match self.there.get(first) {
            Some(&(other, there, circuit)) if other == node && there <= class => {
                return Some(Via::There(circuit));
            }
            _ => {}
        }
        if self.reach.as_ref().is_none_or(|(reached, _)| *reached != class) {
            self.reach = Some((class, self.rack.graph.reach(self.from, class, &self.taken)));
        }
        let (_, reach) = self.reach.as_ref()?;
        self.rack.graph.route(reach, node, class, &self.taken).map(Via::New)
    }

    /// Speaks for the cables of `via`.
    pub(crate) fn take(&mut self, via: &Via) {
        if let Via::New(route) = via {
            self.taken.extend(&route.links);
            self.reach = None;
        }
    }
}

/// Whether the brick offers accelerators of that model.
pub(crate) fn offers_model(brick: &Brick, model: &str) -> bool {
    matches!(&brick.spec().offers, crate::Offer::Accelerator { model: is, .. } if is == model)
}
