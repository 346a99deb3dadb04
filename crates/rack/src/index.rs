//! Bricks by what is free on them, for the whole installation, each rack and each tray, so that placement looks at few of them.
//!
//! It holds no truth: [`crate::Rack`] takes a brick out before it changes and puts it back after.

use std::collections::{BTreeSet, HashMap};

use crate::LatencyClass;
use crate::graph::{Brick, Node, Power, Role, Site};

/// Bricks of one role in one place that take more.
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
}

const ROLES: usize = 3;

/// All shelves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    everywhere: [Shelf; ROLES],
    /// By the node of a rack or a tray.
    places: HashMap<Node, [Shelf; ROLES]>,
}

impl Index {
    pub(crate) fn insert(&mut self, node: Node, brick: &Brick) {
        self.each(node, brick, |shelf, entry, on| {
            let (set, sum) = shelf.side(on);
            if set.insert(entry) {
                *sum += entry.0;
            }
        });
    }

    pub(crate) fn remove(&mut self, node: Node, brick: &Brick) {
        self.each(node, brick, |shelf, entry, on| {
            let (set, sum) = shelf.side(on);
            if set.remove(&entry) {
                *sum -= entry.0;
            }
        });
    }

    fn each(&mut self, node: Node, brick: &Brick, change: impl Fn(&mut Shelf, (u64, Node), bool)) {
        let free = brick.free();
        if !brick.takes_more() || free == 0 {
            return;
        }
        let role = brick.role() as usize;
        let on = brick.power() != Power::Off;
        change(&mut self.everywhere[role], (free, node), on);
        for place in [brick.site.rack, brick.site.tray].into_iter().flatten() {
            change(&mut self.places.entry(place).or_default()[role], (free, node), on);
        }
    }

    /// The shelves of all bricks and of each place that has something, to compare.
    pub(crate) fn shelves(&self) -> (&[Shelf; ROLES], Vec<(Node, &[Shelf; ROLES])>) {
        let used = |shelves: &[Shelf; ROLES]| shelves.iter().any(|shelf| *shelf != Shelf::default());
        let mut places: Vec<_> = self
            .places
            .iter()
            .filter(|(_, shelves)| used(shelves))
            .map(|(place, shelves)| (*place, shelves))
            .collect();
        places.sort_unstable_by_key(|(place, _)| *place);
        (&self.everywhere, places)
    }

    /// The shelf that holds every brick within `class` of `site`.
    pub(crate) fn shelf(&self, role: Role, class: LatencyClass, site: Site) -> Option<&Shelf> {
        let place = match class {
            LatencyClass::Local => return None,
            LatencyClass::Tray => site.tray?,
            LatencyClass::Rack => site.rack?,
            LatencyClass::Interrack => return Some(&self.everywhere[role as usize]),
        };
        self.places.get(&place).map(|shelves| &shelves[role as usize])
    }
}

impl Shelf {
    fn side(&mut self, on: bool) -> (&mut BTreeSet<(u64, Node)>, &mut u64) {
        if on { (&mut self.on, &mut self.free_on) } else { (&mut self.off, &mut self.free_off) }
    }
}
