//! Latency classes: how far away memory is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How far away memory is, nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LatencyClass {
    /// The machine's own RAM.
    Local,
    /// On the same tray.
    Tray,
    /// In the same rack.
    Rack,
    /// In another rack.
    Interrack,
}

impl LatencyClass {
    /// All classes, nearest first.
    pub const ALL: [Self; 4] = [Self::Local, Self::Tray, Self::Rack, Self::Interrack];

    /// The word in the API and on the command line.
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

/// The text is not a latency class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a latency class: write local, tray, rack or interrack")]
pub struct ParseClassError(String);

impl FromStr for LatencyClass {
    type Err = ParseClassError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|class| class.as_str() == text);
        known.ok_or_else(|| ParseClassError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_the_command_line_use_the_same_words() {
        for class in LatencyClass::ALL {
            assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
            assert_eq!(class.as_str().parse(), Ok(class));
        }
        assert!("far".parse::<LatencyClass>().is_err());
    }

    #[test]
    fn nearer_is_less() {
        assert!(LatencyClass::ALL.is_sorted());
    }
}
