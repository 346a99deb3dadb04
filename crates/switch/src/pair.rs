//! Two ports that a circuit connects.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::SwitchError;

/// Two different ports of one switch, written `0-4`. It has no direction: `4-0` is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "[u16; 2]", try_from = "[u16; 2]")]
pub struct Pair([u16; 2]);

impl Pair {
    /// The pair of `one` and `other`.
    pub fn new(one: u16, other: u16) -> Result<Self, SwitchError> {
        if one == other {
            return Err(SwitchError::SamePort(one));
        }
        Ok(Self([one.min(other), one.max(other)]))
    }

    /// Both ports, the smaller first.
    pub fn ports(self) -> [u16; 2] {
        self.0
    }

    /// Whether `port` is one of them.
    pub fn has(self, port: u16) -> bool {
        self.0.contains(&port)
    }
}

impl TryFrom<[u16; 2]> for Pair {
    type Error = SwitchError;

    fn try_from([one, other]: [u16; 2]) -> Result<Self, SwitchError> {
        Self::new(one, other)
    }
}

impl From<Pair> for [u16; 2] {
    fn from(pair: Pair) -> Self {
        pair.0
    }
}

impl FromStr for Pair {
    type Err = SwitchError;

    fn from_str(text: &str) -> Result<Self, SwitchError> {
        let ports =
            text.split_once('-').and_then(|(one, other)| Some([one.parse().ok()?, other.parse().ok()?]));
        ports.ok_or_else(|| SwitchError::PairText(text.to_owned()))?.try_into()
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0[0], self.0[1])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]
mod tests {
    use super::*;

    #[test]
    fn a_pair_has_no_direction() {
        assert_eq!(Pair::new(4, 0).unwrap(), Pair::new(0, 4).unwrap());
        assert_eq!("4-0".parse::<Pair>().unwrap().to_string(), "0-4");
        assert_eq!(serde_json::from_str::<Pair>("[4, 0]").unwrap().ports(), [0, 4]);
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        for text in ["", "4", "4-", "-4", "a-b", "1-2-3", "70000-1", "3-3"] {
            assert!(text.parse::<Pair>().is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Pair>("[3, 3]").is_err());
    }
}
