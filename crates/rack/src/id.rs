//! How the parts of a rack, and what is reserved of them, are named. The ids are ours; no library's index is ever an id.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::RackError;

/// Longest name: as long as a DNS label, because names become host and namespace names.
pub const NAME_LEN_MAX: usize = 63;

/// Name of a rack, tray, brick, switch or shared group. One name means one thing in the whole installation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = RackError;

    fn from_str(text: &str) -> Result<Self, RackError> {
        let fits = (1..=NAME_LEN_MAX).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if fits { Ok(Self(text.into())) } else { Err(RackError::Name(text.to_owned())) }
    }
}

impl TryFrom<String> for Name {
    type Error = RackError;

    fn try_from(text: String) -> Result<Self, RackError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A port of a brick or a switch, written `NAME:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PortRef {
    /// The brick or switch.
    pub of: Name,
    /// Its port, counted from 0.
    pub port: u16,
}

impl FromStr for PortRef {
    type Err = RackError;

    fn from_str(text: &str) -> Result<Self, RackError> {
        let error = || RackError::PortText(text.to_owned());
        let (of, port) = text.rsplit_once(':').ok_or_else(error)?;
        if !port.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(error());
        }
        Ok(Self { of: of.parse().map_err(|_| error())?, port: port.parse().map_err(|_| error())? })
    }
}

impl TryFrom<String> for PortRef {
    type Error = RackError;

    fn try_from(text: String) -> Result<Self, RackError> {
        text.parse()
    }
}

impl From<PortRef> for String {
    fn from(port: PortRef) -> Self {
        port.to_string()
    }
}

impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.of, self.port)
    }
}

/// Number of a reservation; whoever keeps the durable operations gives it. At most 2⁴⁸ − 1, so that parts can be numbered below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReservationId(pub u64);

/// Bits of a part's number that count the parts of one reservation.
const PART_BITS: u32 = 16;

/// Segments, and likewise circuits, that one reservation can make in its life, growth and moves included.
pub const PARTS_MAX: u32 = 1 << PART_BITS;

/// Largest reservation number.
pub const RESERVATION_MAX: u64 = u64::MAX >> PART_BITS;

/// A segment: numbered below the reservation that made it, so that a plan can name it before it is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SegmentId(pub u64);

/// A circuit: numbered below the reservation that had it made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CircuitId(pub u64);

impl SegmentId {
    /// The `part`th segment that `reservation` made.
    pub const fn new(reservation: ReservationId, part: u32) -> Self {
        Self(reservation.0 << PART_BITS | part as u64)
    }
}

impl SegmentId {
    /// The reservation that made it.
    pub const fn reservation(self) -> ReservationId {
        ReservationId(self.0 >> PART_BITS)
    }
}

impl CircuitId {
    /// The `part`th circuit that `reservation` had made.
    pub const fn new(reservation: ReservationId, part: u32) -> Self {
        Self(reservation.0 << PART_BITS | part as u64)
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> PART_BITS, self.0 & u64::from(PARTS_MAX - 1))
    }
}

impl fmt::Display for CircuitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> PART_BITS, self.0 & u64::from(PARTS_MAX - 1))
    }
}

/// How often the rack changed. A plan names the generation it was made on; agents refuse older ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A moment, in milliseconds since the Unix epoch. Nobody here asks a clock: callers say what time it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for text in ["c1", "rack-1.tray_2", "9"] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
        for text in ["", "-a", "a b", "a:1", "ü", &"x".repeat(64)] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }

    #[test]
    fn ports_survive_a_round_trip() {
        assert_eq!("c1:7".parse::<PortRef>().unwrap().to_string(), "c1:7");
        for text in ["c1", "c1:", ":1", "c1:x", "c1:70000", "c1:+1", "c1:-1", "c1: 1"] {
            assert!(text.parse::<PortRef>().is_err(), "{text}");
        }
    }

    #[test]
    fn parts_of_different_reservations_never_meet() {
        assert_ne!(SegmentId::new(ReservationId(1), 0), SegmentId::new(ReservationId(0), PARTS_MAX - 1));
        assert_eq!(SegmentId::new(ReservationId(17), 3).to_string(), "17.3");
    }
}
