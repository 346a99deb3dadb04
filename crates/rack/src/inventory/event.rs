//! Everything that can happen to a rack.

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};

use crate::graph::{BrickSpec, CableSpec, SwitchSpec};
use crate::{CircuitId, Generation, Name, Plan, PortRef, Reservation, ReservationId, SegmentId};

/// Something that happened. A rack is what its events made of it, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", content = "of", rename_all = "kebab-case")]
pub enum Event {
    /// S9: a rack is registered.
    RackAdded(Name),
    /// S9: a tray is registered.
    TrayAdded {
        /// The tray.
        name: Name,
        /// Its rack.
        rack: Name,
    },
    /// S9: a brick is registered.
    BrickAdded(BrickSpec),
    /// S9: a switch is registered.
    SwitchAdded(SwitchSpec),
    /// S9: a cable is registered.
    CableAdded(CableSpec),
    /// S9: a rack, tray, brick or switch is removed, with its cables.
    Removed(Name),
    /// S9: the cable in a port is removed.
    CableRemoved(PortRef),
    /// A brick takes nothing new any more, or does again.
    Draining {
        /// The brick.
        brick: Name,
        /// Whether it drains.
        draining: bool,
    },
    /// S10: a plan is accepted; what it grants is held from now on.
    Accepted(Box<Plan>),
    /// Executors begin to carry a reservation out; it cannot expire any more.
    Started(ReservationId),
    /// The last step of the plan under way was done.
    Done(ReservationId),
    /// Executors begin to undo the plan under way. Its steps are those that [`crate::planner::undo`] gave.
    Undoing(ReservationId),
    /// The plan under way was undone; what it granted is free.
    Undone(ReservationId),
    /// Nobody applied the reservation in time.
    Expired(ReservationId),
    /// Observed: a brick is on or off.
    PowerSeen {
        /// The brick.
        brick: Name,
        /// Whether it is on.
        on: bool,
    },
    /// Observed: a brick answers or does not.
    Reachable {
        /// The brick.
        brick: Name,
        /// Whether it answers.
        reachable: bool,
    },
    /// Observed: a memory server's pool has another size.
    PoolSeen {
        /// The memory brick.
        brick: Name,
        /// The size.
        size: Bytes,
    },
    /// Observed: a memory server does not have the segment (any more).
    SegmentLost(SegmentId),
    /// Observed: a memory server holds pages for somebody we do not know.
    StrayPages {
        /// The memory brick.
        brick: Name,
        /// How many.
        pages: u64,
    },
    /// Observed: the switches have a circuit, or one of them does not.
    CircuitSeen {
        /// The circuit.
        circuit: CircuitId,
        /// Whether it is there.
        up: bool,
    },
    /// Observed: a switch has a port connected for somebody we do not know, or not any more.
    StrayPort {
        /// The switch's port.
        port: PortRef,
        /// Whether it is connected.
        connected: bool,
    },
}

/// What an event made of the rack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The rack's generation after it.
    pub generation: Generation,
    /// The reservation that it ended.
    pub ended: Option<Reservation>,
}
