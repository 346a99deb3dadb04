//! The rack: graph, reservations and what is derived of them. It changes by [`Rack::apply`] alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::graph::{Brick, Cable, Circuit, Graph, Node, Power, Switch, Vertex};
use crate::index::Index;
use crate::quota::Usage;
use crate::{
    CircuitId, Generation, Name, RackError, Reservation, ReservationId, Segment, SegmentId, Timestamp,
};

/// Everything that is known of the racks, and what is reserved of them.
#[derive(Clone, Debug, Default)]
pub struct Rack {
    pub(crate) generation: Generation,
    pub(crate) graph: Graph,
    pub(crate) index: Index,
    pub(crate) reservations: BTreeMap<ReservationId, Reservation>,
    pub(crate) segments: HashMap<SegmentId, Segment>,
    /// The segments of each shared group.
    pub(crate) groups: BTreeMap<Name, Vec<SegmentId>>,
    pub(crate) usage: BTreeMap<String, Usage>,
    /// Reservations that can expire, soonest first.
    pub(crate) expiries: BTreeSet<(Timestamp, ReservationId)>,
}

impl Rack {
    /// How often the rack changed.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The brick of that name.
    pub fn brick(&self, name: &Name) -> Result<&Brick, RackError> {
        self.graph.brick(name)
    }

    /// All bricks, in the order of their registration.
    pub fn bricks(&self) -> impl Iterator<Item = &Brick> {
        self.graph.brick_nodes().map(|(_, brick)| brick)
    }

    /// The switch of that name.
    pub fn switch(&self, name: &Name) -> Result<&Switch, RackError> {
        self.graph.switch(name)
    }

    /// All switches.
    pub fn switches(&self) -> impl Iterator<Item = &Switch> {
        self.graph.vertices().filter_map(|vertex| match vertex {
            Vertex::Switch(switch) => Some(&**switch),
            _ => None,
        })
    }

    /// All racks.
    pub fn racks(&self) -> impl Iterator<Item = &Name> {
        self.graph.vertices().filter_map(|vertex| match vertex {
            Vertex::Rack(name) => Some(name),
            _ => None,
        })
    }

    /// All trays, each with its rack.
    pub fn trays(&self) -> impl Iterator<Item = (&Name, &Name)> {
        self.graph.vertices().filter_map(|vertex| match vertex {
            Vertex::Tray { name, rack } => Some((name, rack)),
            _ => None,
        })
    }

    /// All cables.
    pub fn cables(&self) -> impl Iterator<Item = &Cable> {
        self.graph.cables()
    }

    /// All circuits.
    pub fn circuits(&self) -> impl Iterator<Item = &Circuit> {
        self.graph.circuits()
    }

    /// The circuit of that number.
    pub fn circuit(&self, id: CircuitId) -> Option<&Circuit> {
        self.graph.circuit(id)
    }

    /// The circuits that end at a brick, each with the brick at its other end.
    pub fn circuits_of(&self, brick: &Name) -> Result<impl Iterator<Item = (&Name, &Circuit)>, RackError> {
        let node = self.graph.brick_node(brick)?;
        let circuits = self.graph.circuits_of(node);
        Ok(circuits.filter_map(|(other, circuit)| Some((self.graph.brick_at(other)?.name(), circuit))))
    }

    /// The reservation of that number, unless it is over.
    pub fn reservation(&self, id: ReservationId) -> Result<&Reservation, RackError> {
        self.reservations.get(&id).ok_or(RackError::UnknownReservation(id))
    }

    /// All reservations that are not over.
    pub fn reservations(&self) -> impl ExactSizeIterator<Item = &Reservation> {
        self.reservations.values()
    }

    /// The segment of that number.
    pub fn segment(&self, id: SegmentId) -> Option<&Segment> {
        self.segments.get(&id)
    }

    /// Whether its memory server does not have the segment any more.
    pub(crate) fn is_lost(&self, segment: &Segment) -> bool {
        !self.graph.brick(&segment.brick).is_ok_and(|brick| brick.extents.owns(segment.start, segment.id))
    }

    /// All segments, in no order.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.values()
    }

    /// The segments of a memory brick, by their place in its pool.
    pub fn segments_on(&self, brick: &Name) -> Result<impl Iterator<Item = &Segment>, RackError> {
        let extents = self.graph.brick(brick)?.extents().iter();
        Ok(extents
            .filter_map(|(_, id)| self.segments.get(&id))
            .filter(move |segment| segment.brick == *brick))
    }

    /// Where a segment lies in the memory of its shared group, if it is in one: the group, and the segment's first page there.
    pub fn place_in_group(&self, segment: SegmentId) -> Option<(Name, u64)> {
        let group = self.segment(segment)?.group.clone()?;
        let before = self.groups.get(&group)?.iter().take_while(|other| **other != segment);
        let pages = before.filter_map(|other| self.segment(*other)).map(|other| other.pages).sum();
        Some((group, pages))
    }

    /// The shared groups, each with its segments.
    pub fn groups(&self) -> impl Iterator<Item = (&Name, &[SegmentId])> {
        self.groups.iter().map(|(name, segments)| (name, segments.as_slice()))
    }

    /// What a project has reserved.
    pub fn usage(&self, project: &str) -> Usage {
        self.usage.get(project).copied().unwrap_or_default()
    }

    /// The reservations that nobody applied in time.
    pub fn due(&self, now: Timestamp) -> impl Iterator<Item = ReservationId> {
        self.expiries.iter().take_while(move |(expires, _)| *expires <= now).map(|(_, id)| *id)
    }

    /// What the bricks that are on, and the switches, draw by their makers' figures.
    pub fn watts(&self) -> u64 {
        let bricks =
            self.bricks().filter(|brick| brick.power() != Power::Off).map(|brick| brick.spec().watts);
        bricks.chain(self.switches().map(|switch| switch.spec().watts)).map(u64::from).sum()
    }

    /// Changes a brick and keeps the index right.
    pub(crate) fn edit(&mut self, node: Node, change: impl FnOnce(&mut Brick)) {
        if let Some(brick) = self.graph.brick_at_mut(node) {
            self.index.remove(node, brick);
            change(brick);
            self.index.insert(node, brick);
        }
    }

    /// Looks again whether a further circuit can end at these; those that are no bricks are passed over.
    pub(crate) fn look_at_ports(&mut self, names: &[Name]) {
        for name in names {
            let Ok(brick) = self.graph.brick(name) else { continue };
            let open = self.graph.has_free_port(brick);
            if open != brick.open {
                self.edit_named(name, |brick| brick.open = open);
            }
        }
    }

    /// Changes the brick of that name; nothing happens if there is none.
    pub(crate) fn edit_named(&mut self, name: &Name, change: impl FnOnce(&mut Brick)) {
        if let Ok(node) = self.graph.brick_node(name) {
            self.edit(node, change);
        }
    }
}
