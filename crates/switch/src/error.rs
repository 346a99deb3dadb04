//! What can be wrong, in sentences for whoever asked.

use std::io;

use crate::Pair;

/// A switch refuses, or cannot do, what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// Not a pair of ports.
    #[error("'{0}' is not a pair of ports: write two port numbers, for example 0-4")]
    PairText(String),
    /// A circuit from a port to itself.
    #[error("port {0} cannot be connected to itself; name two ports")]
    SamePort(u16),
    /// Not the address of a switch.
    #[error("'{0}' is not the address of a switch: write tc:NAMESPACE, or sim:PORTS for one in memory")]
    Address(String),
    /// There is no such port.
    #[error("the switch has no port {port}; it has {ports}")]
    UnknownPort {
        /// The port asked for.
        port: u16,
        /// Those that there are.
        ports: String,
    },
    /// The port serves another circuit.
    #[error("port {port} serves the circuit {by}; disconnect that first, or in the same change")]
    Taken {
        /// The port asked for.
        port: u16,
        /// Its circuit.
        by: Pair,
    },
    /// One change connects a port twice.
    #[error("the change connects port {0} to two others; a port serves one circuit")]
    Twice(u16),
    /// Somebody with newer knowledge changed the switch meanwhile.
    #[error(
        "generation {generation} is overtaken: the switch was changed by generation {present}; plan again from what is there now"
    )]
    Overtaken {
        /// The one of the request.
        generation: u64,
        /// The highest that changed the switch.
        present: u64,
    },
    /// There is no namespace with this switch.
    #[error("there is no switch in the network namespace '{namespace}': {reason}")]
    NoSwitch {
        /// The namespace.
        namespace: String,
        /// The kernel's words.
        reason: io::Error,
    },
    /// A program cannot be started.
    #[error("cannot run '{program}': {reason}; install iproute2")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// Why not.
        reason: io::Error,
    },
    /// A program failed.
    #[error("'{command}' failed: {words}")]
    Program {
        /// What was run; of several lines, those that were handed in.
        command: String,
        /// What it said.
        words: String,
    },
    /// A change failed half way and what was there before could not be restored either.
    #[error("{failure}; the circuits that were there could not be restored either: {restoring}")]
    Torn {
        /// Why the change failed.
        failure: Box<SwitchError>,
        /// Why its undoing failed.
        restoring: Box<SwitchError>,
    },
}
