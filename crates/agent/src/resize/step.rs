//! The steps of a resize, in words, and what each may cost.

use std::fmt;

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};

/// One thing that a resize does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Step {
    /// The balloon gives memory back to the guest.
    Deflate {
        /// What it holds.
        from: Bytes,
        /// What it will hold.
        to: Bytes,
    },
    /// The guest gets more of its virtio-mem device, or DIMMs.
    Plug {
        /// What it has of it.
        from: Bytes,
        /// What it will have.
        to: Bytes,
    },
    /// The guest gives some of its virtio-mem device back, or DIMMs.
    Unplug {
        /// What it has of it.
        from: Bytes,
        /// What it will have.
        to: Bytes,
    },
    /// The balloon takes memory from the guest.
    Inflate {
        /// What it holds.
        from: Bytes,
        /// What it will hold.
        to: Bytes,
    },
    /// The guest is shut down and started again with a larger maximum.
    Restart {
        /// What it will have, and can at most have.
        memory: Bytes,
    },
}

/// What a step may cost whoever uses the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// In a sentence.
    pub sentence: &'static str,
    /// Time that moving one GiB takes, in milliseconds, by what was seen on slow guests.
    pub ms_per_gib: u64,
    /// Whether the guest may give only part of what it is asked for.
    pub may_be_partial: bool,
    /// Whether the guest is restarted.
    pub restarts: bool,
}

impl Cost {
    /// Expected time to go from one amount to another.
    pub fn expected_ms(&self, from: Bytes, to: Bytes) -> u64 {
        (u128::from(from.0.abs_diff(to.0)) * u128::from(self.ms_per_gib) / (1 << 30)) as u64
    }
}

impl Step {
    /// What it may cost.
    pub fn cost(&self) -> Cost {
        let cost = |sentence, ms_per_gib, may_be_partial| Cost {
            sentence,
            ms_per_gib,
            may_be_partial,
            restarts: false,
        };
        match self {
            Self::Deflate { .. } => cost("none: the guest gets memory back that it had before", 500, false),
            Self::Plug { .. } => cost(
                "well under a second; the guest's kernel keeps about 1.6 % of what is added for its own records",
                250,
                false,
            ),
            Self::Unplug { .. } => cost(
                "the guest moves pages out of the way, about a second for each GiB in use; what it cannot move stays",
                1000,
                true,
            ),
            Self::Inflate { .. } => cost(
                "the guest drops caches, and may swap if it has swap space; what it needs it keeps",
                1000,
                true,
            ),
            Self::Restart { .. } => Cost {
                sentence: "the guest shuts down and boots again: all that runs in it ends",
                ms_per_gib: 0,
                may_be_partial: false,
                restarts: true,
            },
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deflate { from, to } => write!(f, "deflate the balloon from {from} to {to}"),
            Self::Plug { from, to } => write!(f, "plug memory: from {from} to {to}"),
            Self::Unplug { from, to } => write!(f, "unplug memory: from {from} to {to}"),
            Self::Inflate { from, to } => write!(f, "inflate the balloon from {from} to {to}"),
            Self::Restart { memory } => write!(f, "restart the guest with {memory}"),
        }
    }
}
