//! What connects bricks: switches, cables, and the circuits that are set through them.

use serde::{Deserialize, Serialize};

use super::{Lanes, Link, Site};
use crate::{CircuitId, LatencyClass, Name, PortRef, ReservationId};

/// A switch as it is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchSpec {
    /// Its name.
    pub name: Name,
    /// Where it stands, which says how far its circuits reach.
    pub place: Place,
    /// What it switches.
    pub kind: SwitchKind,
    /// Ports for cables, counted from 0.
    pub ports: u16,
    /// What it draws, as its maker says; 0 if unknown.
    #[serde(default)]
    pub watts: u32,
    /// Where its driver finds it. Carried, never used here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Where a switch stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// In a tray: circuits between its bricks are of class `tray`.
    Tray(Name),
    /// In a rack: circuits through it are of class `rack` at least.
    Rack(Name),
    /// Between the racks: circuits through it are of class `interrack`.
    Between,
}

/// What a switch switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SwitchKind {
    /// A port belongs to one circuit (S1, optical).
    Circuit,
    /// A port may carry many circuits (S2, electrical).
    Packet,
}

/// A switch.
#[derive(Clone, Debug)]
pub struct Switch {
    pub(crate) spec: SwitchSpec,
    pub(crate) site: Site,
    /// Number among the switches, for tables of searches.
    pub(crate) ordinal: usize,
    /// The cable in each port.
    pub(crate) ports: Vec<Option<Link>>,
    /// Cables to other switches.
    pub(crate) trunks: Lanes,
    /// How far away the farthest brick stands that has a cable to it; none if no brick has.
    pub(crate) span: Option<LatencyClass>,
}

impl Switch {
    /// As it was registered.
    pub fn spec(&self) -> &SwitchSpec {
        &self.spec
    }
}

/// A cable as it is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CableSpec {
    /// The ports it connects.
    pub ends: [PortRef; 2],
    /// One-way latency, with the port logic at both ends.
    pub latency_ns: u32,
    /// Bandwidth in megabits per second.
    pub mbps: u32,
}

/// A cable, and who uses it.
#[derive(Clone, Debug)]
pub struct Cable {
    pub(crate) spec: CableSpec,
    /// Whether many circuits may share it: it ends at packet switches only, or at one and a brick.
    pub(crate) shared: bool,
    /// Circuits through it.
    pub(crate) circuits: u32,
    /// For each end: its switch has the port connected for somebody we do not know.
    pub(crate) stray: [bool; 2],
}

impl Cable {
    /// As it was registered.
    pub fn spec(&self) -> &CableSpec {
        &self.spec
    }

    /// Circuits through it.
    pub fn circuits(&self) -> u32 {
        self.circuits
    }

    /// Whether a further circuit may go through it.
    pub fn has_room(&self) -> bool {
        self.stray == [false; 2] && (self.shared || self.circuits == 0)
    }

    /// The end that is not at `name`; of a cable between two ports of one switch, which is refused, there is none.
    pub(crate) fn far_end(&self, name: &Name) -> &PortRef {
        if self.spec.ends[0].of == *name { &self.spec.ends[1] } else { &self.spec.ends[0] }
    }

    pub(crate) fn near_end(&self, name: &Name) -> &PortRef {
        if self.spec.ends[0].of == *name { &self.spec.ends[0] } else { &self.spec.ends[1] }
    }
}

/// The way of a circuit, from a compute brick to a memory or accelerator brick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// The cables by their ends, each from the compute brick's side to the other.
    pub cables: Vec<[PortRef; 2]>,
    /// Sum of the cables' latencies.
    pub latency_ns: u32,
    /// Bandwidth of the narrowest cable.
    pub mbps: u32,
    /// Latency class.
    pub class: LatencyClass,
}

impl Path {
    /// The compute brick's port.
    pub fn near(&self) -> &PortRef {
        &self.cables[0][0]
    }

    /// The other brick's port.
    pub fn far(&self) -> &PortRef {
        &self.cables[self.cables.len() - 1][1]
    }

    /// The ports that each switch on the way connects.
    pub fn crossings(&self) -> impl Iterator<Item = (&Name, [u16; 2])> {
        self.cables.windows(2).map(|pair| (&pair[0][1].of, [pair[0][1].port, pair[1][0].port]))
    }
}

/// Whether a circuit is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CircuitState {
    /// A plan wants it; the switches may have it or not.
    Planned,
    /// The switches have it.
    Up,
    /// Its last user leaves it and has it disconnected; nobody may come to use it any more, and its cables are not free yet.
    Closing {
        /// Who.
        by: ReservationId,
    },
    /// A switch was seen without it. Its reservations are cut off until it is connected again.
    Down,
}

impl CircuitState {
    /// Whether a further reservation may use the circuit.
    pub(crate) fn is_usable(self) -> bool {
        matches!(self, Self::Planned | Self::Up)
    }
}

/// An established cross-connection between two bricks: an edge of the graph as D4.1 draws it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circuit {
    /// Its number.
    pub id: CircuitId,
    /// Its way.
    pub path: Path,
    /// Whether it is there.
    pub state: CircuitState,
    /// The reservations that need it, ascending. It goes with the last of them.
    pub users: Vec<ReservationId>,
}
