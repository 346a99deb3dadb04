//! Bricks by what is free on them, for the whole installation, each rack and each tray, so that placement looks at few of them.
//!
//! It holds no truth: [`crate::Rack`] takes a brick out before it changes and puts it back after.

use std::collections::{BTreeMap, BTreeSet};

use crate::LatencyClass;
use crate::graph::{Brick, Node, Power, Role, Site};

/// Bricks of one role in one place that take more. Memory and accelerator bricks whose ports are all taken are not in its sets: only
/// who has a circuit to them can have more of them. Of those that do not answer it knows only how much they would have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shelf {
    /// Powered bricks with something free, by how much.
    pub(crate) on: BTreeSet<(u64, Node)>,
    /// Bricks that could be woken, by capacity.
    pub(crate) off: BTreeSet<(u64, Node)>,
    /// Sum over `on`.
    pub(crate) free_on: u64,
    /// Sum over `off`.
    pub(crate) free_off: u64,
    /// Free on powered bricks that are not in `on` because their ports are taken.
    pub(crate) free_closed: u64,
    /// Free on bricks that would take more if they answered.
    pub(crate) free_silent: u64,
}

const ROLES: usize = 3;

/// All shelves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    everywhere: [Shelf; ROLES],
    racks: BTreeMap<Node, [Shelf; ROLES]>,
    trays: BTreeMap<Node, [Shelf; ROLES]>,
}

impl Index {
    pub(crate) fn insert(&mut self, node: Node, brick: &Brick) {
        self.each(node, brick, |shelf, entry, side| {
            let (set, sum) = shelf.side(side);
            if set.is_none_or(|set| set.insert(entry)) {
                *sum += entry.0;
            }
        });
    }

    pub(crate) fn remove(&mut self, node: Node, brick: &Brick) {
        self.each(node, brick, |shelf, entry, side| {
            let (set, sum) = shelf.side(side);
            if set.is_none_or(|set| set.remove(&entry)) {
                *sum -= entry.0;
            }
        });
    }

    fn each(&mut self, node: Node, brick: &Brick, change: impl Fn(&mut Shelf, (u64, Node), Side)) {
        let free = brick.free();
        let open = brick.open || brick.role() == Role::Compute;
        if brick.is_draining() || free == 0 {
            return;
        }
        let role = brick.role() as usize;
        let side = match brick.power() {
            _ if !brick.is_reachable() => Side::Silent,
            Power::Off => Side::Off,
            _ if open => Side::On,
            _ => Side::Closed,
        };
        change(&mut self.everywhere[role], (free, node), side);
        let rack = brick.site.rack.map(|rack| self.racks.entry(rack).or_default());
        let tray = brick.site.tray.map(|tray| self.trays.entry(tray).or_default());
        for shelves in [rack, tray].into_iter().flatten() {
            change(&mut shelves[role], (free, node), side);
        }
    }

    /// The shelves of each place of the size of `class`: within one of them, everything is of that class or nearer.
    pub(crate) fn places(&self, class: LatencyClass) -> impl Iterator<Item = Shelves<'_>> {
        let (one, many) = match class {
            LatencyClass::Local => (None, None),
            LatencyClass::Tray => (None, Some(&self.trays)),
            LatencyClass::Rack => (None, Some(&self.racks)),
            LatencyClass::Interrack => (Some(&self.everywhere), None),
        };
        one.into_iter().chain(many.into_iter().flat_map(BTreeMap::values)).map(Shelves)
    }

    /// Whether both hold the same; places that hold nothing do not count.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let same = |a: &BTreeMap<Node, [Shelf; ROLES]>, b: &BTreeMap<Node, [Shelf; ROLES]>| {
            let empty = Default::default();
            a.keys()
                .chain(b.keys())
                .all(|place| a.get(place).unwrap_or(&empty) == b.get(place).unwrap_or(&empty))
        };
        self.everywhere == other.everywhere
            && same(&self.racks, &other.racks)
            && same(&self.trays, &other.trays)
    }

    /// The shelf that holds every brick within `class` of `site`.
    pub(crate) fn shelf(&self, role: Role, class: LatencyClass, site: Site) -> Option<&Shelf> {
        self.place(class, site).map(|place| place.of(role))
    }

    /// The shelves that hold every brick within `class` of `site`.
    pub(crate) fn place(&self, class: LatencyClass, site: Site) -> Option<Shelves<'_>> {
        let shelves = match class {
            LatencyClass::Local => None,
            LatencyClass::Tray => self.trays.get(&site.tray?),
            LatencyClass::Rack => self.racks.get(&site.rack?),
            LatencyClass::Interrack => Some(&self.everywhere),
        };
        shelves.map(Shelves)
    }
}

/// The shelves of one place.
#[derive(Clone, Copy)]
pub(crate) struct Shelves<'a>(&'a [Shelf; ROLES]);

impl<'a> Shelves<'a> {
    pub(crate) fn of(self, role: Role) -> &'a Shelf {
        &self.0[role as usize]
    }
}

/// Where a brick stands on a shelf.
#[derive(Clone, Copy)]
enum Side {
    On,
    Off,
    Closed,
    Silent,
}

impl Shelf {
    fn side(&mut self, side: Side) -> (Option<&mut BTreeSet<(u64, Node)>>, &mut u64) {
        match side {
            Side::On => (Some(&mut self.on), &mut self.free_on),
            Side::Off => (Some(&mut self.off), &mut self.free_off),
            Side::Closed => (None, &mut self.free_closed),
            Side::Silent => (None, &mut self.free_silent),
        }
    }
}
