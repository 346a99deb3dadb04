//! What can be wrong, in sentences for whoever asked.

use rackmem_types::Bytes;

use crate::planner::Refusal;
use crate::{LatencyClass, Name, PortRef, ReservationId, State};

/// The rack refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RackError {
    /// Not a name.
    #[error(
        "'{0}' is not a name: write 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit"
    )]
    Name(String),
    /// Not a port.
    #[error("'{0}' is not a port: write NAME:PORT, for example c1:0")]
    PortText(String),
    /// Not a latency class.
    #[error("'{0}' is not a latency class: write local, tray, rack or interrack")]
    Class(String),
    /// There is no such thing.
    #[error("there is no {what} '{name}'")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// Its name.
        name: Name,
    },
    /// There is no such reservation.
    #[error("there is no reservation {0}; it may have been released or have expired")]
    UnknownReservation(ReservationId),
    /// The name is taken.
    #[error("the name '{name}' is taken by a {what}; every name is given once")]
    Duplicate {
        /// What has the name.
        what: &'static str,
        /// The name.
        name: Name,
    },
    /// The number is taken, or too large.
    #[error("reservation number {0} cannot be given: it is in use or beyond 2^48")]
    ReservationNumber(ReservationId),
    /// A brick or switch that could never be used.
    #[error("'{name}' {problem}")]
    Useless {
        /// Its name.
        name: Name,
        /// Why.
        problem: &'static str,
    },
    /// The brick or switch has no such port.
    #[error("there is no port {port}: '{}' has {ports} ports, counted from 0", port.of)]
    UnknownPort {
        /// The port.
        port: PortRef,
        /// Ports that there are.
        ports: usize,
    },
    /// Racks and trays have no ports.
    #[error("'{name}' is a rack or a tray and has no ports; cables connect bricks and switches")]
    NoPorts {
        /// Its name.
        name: Name,
    },
    /// There is a cable already.
    #[error("port {port} is taken: a cable connects it with {by}")]
    PortTaken {
        /// The port.
        port: PortRef,
        /// The port at the cable's other end.
        by: PortRef,
    },
    /// A cable from something to itself.
    #[error("a cable from {} to {} connects '{}' with itself", ends[0], ends[1], ends[0].of)]
    SelfLoop {
        /// The cable's ends.
        ends: [PortRef; 2],
    },
    /// There is no cable in the port.
    #[error("there is no cable in port {port}")]
    NoCable {
        /// The port.
        port: PortRef,
    },
    /// The cable cannot be unplugged.
    #[error("the cable in {port} is in use: {}", reasons.join("; "))]
    CableInUse {
        /// The port.
        port: PortRef,
        /// By whom.
        reasons: Vec<String>,
    },
    /// Something cannot be removed.
    #[error("'{name}' is in use: {}", reasons.join("; "))]
    InUse {
        /// Its name.
        name: Name,
        /// By what.
        reasons: Vec<String>,
    },
    /// The request makes no sense.
    #[error("the request cannot be planned: {0}")]
    Request(String),
    /// The reservation is in another state.
    #[error("reservation {id} is {is}; {needs}")]
    State {
        /// The reservation.
        id: ReservationId,
        /// Its state.
        is: State,
        /// What could be done instead.
        needs: &'static str,
    },
    /// The project has no more quota.
    #[error(
        "project '{project}' may have {limit} of {class} memory: {used} is reserved and {asked} was asked for"
    )]
    Quota {
        /// The project.
        project: String,
        /// Which limit was hit.
        class: LatencyClass,
        /// The limit.
        limit: Bytes,
        /// What it has.
        used: Bytes,
        /// What was asked for.
        asked: Bytes,
    },
    /// Nothing fits.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The world moved on since the plan was made.
    #[error("the plan is overtaken: {}; plan again", .0.join("; "))]
    Overtaken(Vec<String>),
    /// A stored state that cannot be.
    #[error("the stored state contradicts itself: {0}")]
    Snapshot(String),
}
