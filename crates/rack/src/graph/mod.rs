//! The rack as an undirected multigraph: racks, trays, bricks and switches are vertices; containment, cables and circuits
//! are edges (D4.1, Figure 5). It refuses cabling that cannot be. It decides nothing, and lends out none of its library's indices.

mod brick;
mod cabling;
mod lane;
mod path;
mod wiring;

use std::collections::HashMap;

use petgraph::stable_graph::{EdgeIndex, NodeIndex, StableUnGraph};
use petgraph::visit::EdgeRef;

pub use brick::{Brick, BrickSpec, FAR_PAGES_MAX, NETPORTS_MAX, Offer, PORTS_MAX, Power, Role};
pub(crate) use lane::{CircuitEnd, Lane, Lanes};
pub(crate) use path::{Reach, Route};
pub use wiring::{Cable, CableSpec, Circuit, CircuitState, Path, Place, Switch, SwitchKind, SwitchSpec};

use crate::{CircuitId, LatencyClass, Name, RackError};

pub(crate) type Node = NodeIndex<u32>;
pub(crate) type Link = EdgeIndex<u32>;

/// A vertex.
#[derive(Clone, Debug)]
pub(crate) enum Vertex {
    Rack(Name),
    Tray { name: Name, rack: Name },
    Brick(Box<Brick>),
    Switch(Box<Switch>),
}

/// An edge.
#[derive(Clone, Debug)]
pub(crate) enum Edge {
    /// A rack holds a tray, a tray holds a brick, either holds a switch.
    Holds,
    Cable(Box<Cable>),
    Circuit(Box<Circuit>),
}

/// Where something stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) tray: Option<Node>,
    pub(crate) rack: Option<Node>,
}

impl Site {
    /// How far `other` is from here.
    pub(crate) fn distance(self, other: Self) -> LatencyClass {
        if self.tray.is_some() && self.tray == other.tray {
            LatencyClass::Tray
        } else if self.rack.is_some() && self.rack == other.rack {
            LatencyClass::Rack
        } else {
            LatencyClass::Interrack
        }
    }
}

/// The graph.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    inner: StableUnGraph<Vertex, Edge>,
    names: HashMap<Name, Node>,
    circuits: HashMap<CircuitId, Link>,
    /// Ordinals given to switches so far; one of a removed switch is not used again.
    switches: usize,
}

impl Graph {
    pub(crate) fn add_rack(&mut self, name: &Name) -> Result<Node, RackError> {
        self.add(name.clone(), Vertex::Rack(name.clone()), None)
    }

    pub(crate) fn add_tray(&mut self, name: &Name, rack: &Name) -> Result<Node, RackError> {
        let holder = self.rack_node(rack)?;
        self.add(name.clone(), Vertex::Tray { name: name.clone(), rack: rack.clone() }, Some(holder))
    }

    pub(crate) fn add_brick(&mut self, spec: BrickSpec) -> Result<Node, RackError> {
        Brick::check(&spec)?;
        let tray = self.tray_node(&spec.tray)?;
        let site = self.site_in_tray(tray)?;
        let name = spec.name.clone();
        self.add(name, Vertex::Brick(Box::new(Brick::new(spec, site))), Some(tray))
    }

    pub(crate) fn add_switch(&mut self, spec: SwitchSpec) -> Result<Node, RackError> {
        if spec.ports < 2 || spec.ports > PORTS_MAX {
            let problem = "needs between 2 and 1024 ports";
            return Err(RackError::Useless { name: spec.name, problem });
        }
        let (site, holder) = match &spec.place {
            Place::Tray(tray) => {
                let tray = self.tray_node(tray)?;
                (self.site_in_tray(tray)?, Some(tray))
            }
            Place::Rack(rack) => {
                let rack = self.rack_node(rack)?;
                (Site { tray: None, rack: Some(rack) }, Some(rack))
            }
            Place::Between => (Site::default(), None),
        };
        let name = spec.name.clone();
        let ports = vec![None; spec.ports.into()];
        let (ordinal, trunks) = (self.switches, Lanes::default());
        let switch = Switch { spec, site, ordinal, ports, trunks, span: None };
        let node = self.add(name, Vertex::Switch(Box::new(switch)), holder)?;
        self.switches += 1;
        Ok(node)
    }

    fn add(&mut self, name: Name, vertex: Vertex, holder: Option<Node>) -> Result<Node, RackError> {
        if let Some(there) = self.names.get(&name) {
            return Err(RackError::Duplicate { what: self.inner[*there].what(), name });
        }
        let node = self.inner.add_node(vertex);
        if let Some(holder) = holder {
            self.inner.add_edge(holder, node, Edge::Holds);
        }
        self.names.insert(name, node);
        Ok(node)
    }

    /// Removes a vertex that holds nothing and has no circuit; its cables go with it.
    pub(crate) fn remove(&mut self, name: &Name) -> Result<(), RackError> {
        let node = self.node(name)?;
        let mut cables = Vec::new();
        let mut reasons = Vec::new();
        for edge in self.inner.edges(node) {
            let other = if edge.source() == node { edge.target() } else { edge.source() };
            match edge.weight() {
                Edge::Holds
                    if self.inner[node].is_place() && !matches!(self.inner[other], Vertex::Rack(_)) =>
                {
                    reasons.push(format!("{} is in it", self.inner[other].name()));
                }
                Edge::Holds => {}
                Edge::Cable(cable) if cable.circuits > 0 => {
                    reasons.push(format!("{} circuits use {}", cable.circuits, cable.near_end(name)));
                }
                Edge::Cable(_) => cables.push(edge.id()),
                Edge::Circuit(circuit) => reasons.push(format!("circuit {} ends at it", circuit.id)),
            }
        }
        if !reasons.is_empty() {
            return Err(RackError::InUse { name: name.clone(), reasons });
        }
        for cable in cables {
            self.unplug(cable);
        }
        self.inner.remove_node(node);
        self.names.remove(name);
        Ok(())
    }

    fn rack_node(&self, name: &Name) -> Result<Node, RackError> {
        match self.names.get(name) {
            Some(&node) if matches!(self.inner[node], Vertex::Rack(_)) => Ok(node),
            _ => Err(RackError::Unknown { what: "rack", name: name.clone() }),
        }
    }

    fn tray_node(&self, name: &Name) -> Result<Node, RackError> {
        match self.names.get(name) {
            Some(&node) if matches!(self.inner[node], Vertex::Tray { .. }) => Ok(node),
            _ => Err(RackError::Unknown { what: "tray", name: name.clone() }),
        }
    }

    fn site_in_tray(&self, tray: Node) -> Result<Site, RackError> {
        let rack = match &self.inner[tray] {
            Vertex::Tray { rack, .. } => Some(self.rack_node(rack)?),
            _ => None,
        };
        Ok(Site { tray: Some(tray), rack })
    }

    pub(crate) fn node(&self, name: &Name) -> Result<Node, RackError> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| RackError::Unknown { what: "brick, switch, tray or rack", name: name.clone() })
    }

    pub(crate) fn brick_node(&self, name: &Name) -> Result<Node, RackError> {
        match self.names.get(name) {
            Some(&node) if matches!(self.inner[node], Vertex::Brick(_)) => Ok(node),
            _ => Err(RackError::Unknown { what: "brick", name: name.clone() }),
        }
    }

    /// The brick at `node`, if it is one.
    pub(crate) fn brick_at(&self, node: Node) -> Option<&Brick> {
        match self.inner.node_weight(node) {
            Some(Vertex::Brick(brick)) => Some(brick),
            _ => None,
        }
    }

    pub(crate) fn brick_at_mut(&mut self, node: Node) -> Option<&mut Brick> {
        match self.inner.node_weight_mut(node) {
            Some(Vertex::Brick(brick)) => Some(brick),
            _ => None,
        }
    }

    pub(crate) fn brick(&self, name: &Name) -> Result<&Brick, RackError> {
        let node = self.brick_node(name)?;
        self.brick_at(node).ok_or_else(|| RackError::Unknown { what: "brick", name: name.clone() })
    }

    pub(crate) fn switch(&self, name: &Name) -> Result<&Switch, RackError> {
        match self.names.get(name).map(|node| &self.inner[*node]) {
            Some(Vertex::Switch(switch)) => Ok(switch),
            _ => Err(RackError::Unknown { what: "switch", name: name.clone() }),
        }
    }

    fn switch_at(&self, node: Node) -> Option<&Switch> {
        match self.inner.node_weight(node) {
            Some(Vertex::Switch(switch)) => Some(switch),
            _ => None,
        }
    }

    pub(crate) fn vertices(&self) -> impl Iterator<Item = &Vertex> {
        self.inner.node_weights()
    }

    pub(crate) fn brick_nodes(&self) -> impl Iterator<Item = (Node, &Brick)> {
        self.inner.node_indices().filter_map(|node| Some((node, self.brick_at(node)?)))
    }

    pub(crate) fn cables(&self) -> impl Iterator<Item = &Cable> {
        self.inner.edge_weights().filter_map(|edge| match edge {
            Edge::Cable(cable) => Some(&**cable),
            _ => None,
        })
    }
}

impl Vertex {
    pub(crate) fn name(&self) -> &Name {
        match self {
            Self::Rack(name) | Self::Tray { name, .. } => name,
            Self::Brick(brick) => brick.name(),
            Self::Switch(switch) => &switch.spec.name,
        }
    }

    fn what(&self) -> &'static str {
        match self {
            Self::Rack(_) => "rack",
            Self::Tray { .. } => "tray",
            Self::Brick(_) => "brick",
            Self::Switch(_) => "switch",
        }
    }

    fn is_place(&self) -> bool {
        matches!(self, Self::Rack(_) | Self::Tray { .. })
    }
}
