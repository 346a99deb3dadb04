//! What the elastic policy decided, and why, in sentences for the log.

use std::fmt;

use rackmem_types::Bytes;

/// What is to be done with a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Hold(Reason),
    /// It gets more.
    Grow {
        /// The new size.
        to: Bytes,
        /// Why.
        reason: Reason,
    },
    /// It gives some back.
    Shrink {
        /// The new size.
        to: Bytes,
        /// Why.
        reason: Reason,
    },
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is outside of its bounds.
    Bounds,
    /// Little is available.
    Low {
        /// Share of its memory.
        percent: u64,
    },
    /// It reads pages back from swap.
    Swapping {
        /// Since the last sample.
        bytes: Bytes,
    },
    /// It reads its files again and again.
    Thrashing {
        /// Major faults a second.
        faults: u64,
    },
    /// Much has been available for long enough.
    Roomy {
        /// Share of its memory.
        percent: u64,
    },
    /// Neither little nor much is available.
    Comfortable {
        /// Share of its memory.
        percent: u64,
    },
    /// Much is available, but not for long yet.
    Waiting {
        /// Share of its memory.
        percent: u64,
        /// Until it may shrink.
        left_ms: u64,
    },
    /// A change has just been made.
    Settling,
    /// It needs more than it may have.
    AtMaximum,
    /// It has as little as is worth asking for.
    AtMinimum,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bounds => write!(f, "its size is outside of the bounds of elastic mode"),
            Self::Low { percent } => write!(f, "only {percent} % of its memory is available"),
            Self::Swapping { bytes } => write!(f, "it read {bytes} back from swap"),
            Self::Thrashing { faults } => write!(f, "it thrashes: {faults} major faults a second"),
            Self::Roomy { percent } => {
                write!(f, "{percent} % of its memory has been available for long enough")
            }
            Self::Comfortable { percent } => write!(f, "{percent} % of its memory is available"),
            Self::Waiting { percent, left_ms } => {
                write!(
                    f,
                    "{percent} % of its memory is available; it shrinks in {} s",
                    left_ms.div_ceil(1000)
                )
            }
            Self::Settling => write!(f, "its last change has just been made"),
            Self::AtMaximum => write!(f, "it needs more, but has all that it may have"),
            Self::AtMinimum => write!(f, "it has as little as is worth asking for"),
        }
    }
}
