//! What can be wrong, in sentences for whoever builds a rack.

use std::io;
use std::path::PathBuf;

use rackmem_rack::Name;
use rackmem_rack::file::Mistake;
use rackmem_switch::SwitchError;

/// A rack cannot be built or taken away.
#[derive(Debug, thiserror::Error)]
pub enum EmulateError {
    /// The rack file has a mistake.
    #[error("the rack file is refused\n{0}")]
    File(#[from] Mistake),
    /// Too many bricks.
    #[error(
        "the rack has {count} bricks; on one machine there can be {max}. Larger racks are for the simulator"
    )]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A packet switch.
    #[error(
        "switch '{0}' is a packet switch, which cannot be built on one machine yet; write kind = \"circuit\""
    )]
    Packet(Name),
    /// Only root makes namespaces.
    #[error("to build a rack, with its network namespaces and cables, takes root: run it with sudo")]
    NotRoot,
    /// A rack of this name stands and was made from another file.
    #[error(
        "rack '{0}' stands already and was made from another file; take it down first: rackmem rack down {0}"
    )]
    Differs(Name),
    /// There is no such rack.
    #[error("there is no rack '{name}' here; there are: {known}")]
    NoRack {
        /// The name asked for.
        name: Name,
        /// Those that stand.
        known: String,
    },
    /// There is no such brick or switch.
    #[error("rack '{rack}' has no {what} '{name}'; it has: {known}")]
    Unknown {
        /// The rack.
        rack: Name,
        /// What was looked for.
        what: &'static str,
        /// Its name.
        name: Name,
        /// Those that there are.
        known: String,
    },
    /// Somebody else's namespace has the name.
    #[error(
        "there is a network namespace '{0}' already and this rack did not make it; give the rack another name: --name NAME"
    )]
    Foreign(String),
    /// A namespace cannot be entered.
    #[error("cannot enter the network namespace '{namespace}': {reason}; this takes root")]
    Enter {
        /// The namespace.
        namespace: String,
        /// The kernel's words.
        reason: io::Error,
    },
    /// A file cannot be read or written.
    #[error("cannot use {}: {reason}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// The kernel's words.
        reason: io::Error,
    },
    /// A program cannot be started.
    #[error("cannot start {what} of '{brick}': {reason}")]
    Start {
        /// Which program.
        what: &'static str,
        /// Where.
        brick: Name,
        /// The kernel's words.
        reason: io::Error,
    },
    /// A program ended, or does not listen.
    #[error("{what} of '{brick}' does not answer; its last words: {words}")]
    Silent {
        /// Which program.
        what: &'static str,
        /// Where.
        brick: Name,
        /// The end of its log.
        words: String,
    },
    /// Processes do not end.
    #[error("processes in rack '{rack}' do not end: {pids}")]
    Stuck {
        /// The rack.
        rack: Name,
        /// Which.
        pids: String,
    },
    /// A network device, namespace or switch is refused.
    #[error(transparent)]
    Net(#[from] SwitchError),
}
