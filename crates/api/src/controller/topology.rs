//! The rack as a graph, for people and for what draws it; and the controller in numbers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::BrickView;
use crate::class::LatencyClass;
use crate::generation::Generation;

/// The controller in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ControllerView {
    /// Version of the controller.
    pub version: String,
    /// Its reign; send this with what changes something.
    pub generation: Generation,
    /// How often the rack changed.
    pub changes: u64,
    /// Bricks.
    pub bricks: u32,
    /// Reservations that are not over.
    pub reservations: u32,
    /// Operations that are running or wait.
    pub operations: u32,
    /// Watts that bricks and switches draw by their makers' figures.
    pub watts: u64,
    /// When it was started, milliseconds since 1970.
    pub started_ms: u64,
    /// Now, milliseconds since 1970.
    pub now_ms: u64,
}

/// A tray.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrayView {
    /// Its name.
    pub name: String,
    /// Its rack.
    pub rack: String,
}

/// A switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SwitchView {
    /// Its name.
    pub name: String,
    /// Where it stands: a tray, a rack, or nothing if it stands between racks.
    pub place: Option<String>,
    /// `circuit` or `packet`.
    pub kind: String,
    /// Ports for cables.
    pub ports: u16,
}

/// A cable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CableView {
    /// The ports it connects, `NAME:PORT`.
    pub ends: Vec<String>,
    /// One-way latency.
    pub latency_ns: u32,
    /// Bandwidth.
    pub mbps: u32,
    /// Circuits through it.
    pub circuits: u32,
}

/// A circuit between two bricks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CircuitView {
    /// Its number.
    pub id: String,
    /// The ports on its way, from the compute brick to the other end.
    pub path: Vec<String>,
    /// How far it reaches.
    pub class: LatencyClass,
    /// planned, up, closing or down.
    pub state: String,
    /// The reservations that need it.
    pub users: Vec<u64>,
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Topology {
    /// Racks.
    pub racks: Vec<String>,
    /// Trays.
    pub trays: Vec<TrayView>,
    /// Bricks.
    pub bricks: Vec<BrickView>,
    /// Switches.
    pub switches: Vec<SwitchView>,
    /// Cables.
    pub cables: Vec<CableView>,
    /// Circuits.
    pub circuits: Vec<CircuitView>,
}
