//! Latency classes: how far away memory may be.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::RackError;

/// How far away memory is, nearest first. As a request it is a ceiling: nearer is always allowed.
///
/// The class of a circuit is the wider of how its two bricks lie to each other and how far its switches reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LatencyClass {
    /// The compute brick's own memory.
    Local,
    /// A memory brick of the same tray.
    Tray,
    /// Another tray of the same rack.
    Rack,
    /// Another rack.
    Interrack,
}

impl LatencyClass {
    /// All classes, nearest first.
    pub const ALL: [Self; 4] = [Self::Local, Self::Tray, Self::Rack, Self::Interrack];

    /// The classes of far memory up to this one, nearest first.
    pub(crate) fn far_up_to(self) -> impl Iterator<Item = Self> {
        [Self::Tray, Self::Rack, Self::Interrack].into_iter().filter(move |class| *class <= self)
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Tray => "tray",
            Self::Rack => "rack",
            Self::Interrack => "interrack",
        }
    }
}

impl fmt::Display for LatencyClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for LatencyClass {
    type Err = RackError;

    fn from_str(text: &str) -> Result<Self, RackError> {
        Self::ALL
            .into_iter()
            .find(|class| class.as_str() == text)
            .ok_or_else(|| RackError::Class(text.to_owned()))
    }
}
