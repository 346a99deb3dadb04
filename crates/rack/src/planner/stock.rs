//! What a search may choose from, by how much is free.

use std::collections::BTreeSet;

use crate::graph::Node;
use crate::index::Shelf;

/// What there is within a class: a shelf, and beside it bricks that the compute brick has a circuit to and that are not on it.
pub(super) struct Stock<'a> {
    pub(super) shelf: Option<&'a Shelf>,
    /// Beside the shelf's, ascending.
    pub(super) on: Vec<(u64, Node)>,
    /// Beside the shelf's, ascending.
    pub(super) off: Vec<(u64, Node)>,
    /// Free on all that are powered.
    pub(super) free_on: u64,
    /// Free on all that could be woken.
    pub(super) free_off: u64,
}

/// What is free on a brick, and the brick.
type Room = (u64, Node);

impl Stock<'_> {
    /// Powered bricks with so much room, the least first.
    pub(super) fn at_least(&self, amount: u64) -> impl Iterator<Item = Room> {
        at_least(self.shelf.map(|shelf| &shelf.on), &self.on, amount)
    }

    /// Powered bricks, the one with most room first.
    pub(super) fn largest_first(&self) -> impl Iterator<Item = Room> {
        largest_first(self.shelf.map(|shelf| &shelf.on), &self.on)
    }

    /// Bricks that could be woken with so much room, the least first.
    pub(super) fn asleep_at_least(&self, amount: u64) -> impl Iterator<Item = Room> {
        at_least(self.shelf.map(|shelf| &shelf.off), &self.off, amount)
    }

    /// Bricks that could be woken, the one with most room first.
    pub(super) fn asleep_largest_first(&self) -> impl Iterator<Item = Room> {
        largest_first(self.shelf.map(|shelf| &shelf.off), &self.off)
    }

    /// How many could be woken.
    pub(super) fn asleep(&self) -> usize {
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
