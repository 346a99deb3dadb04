//! Physical attachments: entries of the brick's RMC table (NetPort entries of D4.1, Appendix I).

use std::fmt;
use std::str::FromStr;

use rackmem_types::{Bytes, PAGE_SIZE, ServerAddress};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::class::LatencyClass;
use crate::name::{AttachmentId, VmName};
use crate::problem::{Problem, ProblemType};
use crate::schema::ServerAddressSchema;

/// Identity of a segment on its memory server; 16 hexadecimal digits in JSON, where not every reader keeps 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(into = "String", try_from = "String")]
#[schema(value_type = String, pattern = "^[0-9a-f]{1,16}$", example = "00000000000000a7")]
pub struct SegmentId(pub u64);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for SegmentId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = if digits { u64::from_str_radix(text, 16).ok() } else { None };
        number.map(Self).ok_or_else(|| {
            format!("'{text}' is not a segment: write up to 16 hexadecimal digits in small letters")
        })
    }
}

impl From<SegmentId> for String {
    fn from(segment: SegmentId) -> Self {
        segment.to_string()
    }
}

impl TryFrom<String> for SegmentId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// One entry of the RMC table: a range of the brick's far address space, and where it leads.
///
/// `start`, `end`, `port` and `offset` are the tuple of D4.1; server and segment are its network address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Its identity on this brick; whoever attaches chooses it, so that attaching twice is attaching once.
    pub id: AttachmentId,
    /// First address, a multiple of 4096.
    #[schema(multiple_of = 4096, maximum = 9_007_199_254_740_991_u64, example = 0)]
    pub start: u64,
    /// One behind the last address, a multiple of 4096.
    #[schema(multiple_of = 4096, maximum = 9_007_199_254_740_991_u64, example = 1_073_741_824)]
    pub end: u64,
    /// The brick's port through which it is reached.
    #[schema(example = 1)]
    pub port: u32,
    /// Added to an address it gives the place in the segment, a multiple of 4096.
    #[serde(default)]
    #[schema(multiple_of = 4096, minimum = -9_007_199_254_740_991_i64, maximum = 9_007_199_254_740_991_i64, default = 0)]
    pub offset: i64,
    /// The memory server.
    #[schema(value_type = ServerAddressSchema)]
    pub server: ServerAddress,
    /// The segment on it; without it the agent reserves one of this size there itself.
    #[serde(default)]
    pub segment: Option<SegmentId>,
    /// How far away it is.
    pub class: LatencyClass,
}

impl Attachment {
    /// Size of the range.
    pub fn size(&self) -> Bytes {
        Bytes(self.end.saturating_sub(self.start))
    }

    /// Whether the entry makes sense by itself.
    pub fn check(&self) -> Result<(), Problem> {
        let invalid = |detail: String| Err(Problem::new(ProblemType::Invalid, detail));
        let page = PAGE_SIZE as u64;
        let Self { id, start, end, offset, .. } = self;
        if start >= end {
            return invalid(format!(
                "attachment '{id}': the range {start}..{end} is empty: let end be above start"
            ));
        }
        if !start.is_multiple_of(page) || !end.is_multiple_of(page) || offset % PAGE_SIZE as i64 != 0 {
            return invalid(format!(
                "attachment '{id}': start {start}, end {end} and offset {offset} have to be multiples of {page}"
            ));
        }
        if start.checked_add_signed(*offset).is_none() || end.checked_add_signed(*offset).is_none() {
            return invalid(format!("attachment '{id}': offset {offset} leads out of the segment"));
        }
        if self.class == LatencyClass::Local {
            return invalid(format!(
                "attachment '{id}': the class local is no far memory: write tray, rack or interrack"
            ));
        }
        Ok(())
    }

    /// Whether both entries have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// An attachment as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttachmentView {
    /// The entry.
    pub entry: Attachment,
    /// How it is.
    pub state: AttachmentState,
    /// Why it is in this state, where that is not plain.
    pub reason: Option<String>,
    /// The machine that it belongs to.
    pub vm: Option<VmName>,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
}

/// How an attachment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttachmentState {
    /// It is being made.
    Attaching,
    /// The memory server answers.
    Up,
    /// The memory server does not answer, or there is no way to it.
    Unreachable,
    /// It is being removed.
    Detaching,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(start: u64, end: u64, offset: i64) -> Attachment {
        Attachment {
            id: "m1".parse().unwrap(),
            start,
            end,
            port: 1,
            offset,
            server: "10.0.0.7:7070".parse().unwrap(),
            segment: Some(SegmentId(0xa7)),
            class: LatencyClass::Rack,
        }
    }

    #[test]
    fn entries_that_make_no_sense_are_refused() {
        assert!(entry(4096, 8192, -4096).check().is_ok());
        for bad in [
            entry(4096, 4096, 0),
            entry(8192, 4096, 0),
            entry(1, 4096, 0),
            entry(0, 4096, 7),
            entry(4096, 8192, -8192),
        ] {
            assert_eq!(bad.check().unwrap_err().kind, ProblemType::Invalid, "{bad:?}");
        }
        assert!(Attachment { class: LatencyClass::Local, ..entry(0, 4096, 0) }.check().is_err());
    }

    #[test]
    fn neighbours_do_not_overlap() {
        assert!(!entry(0, 4096, 0).overlaps(&entry(4096, 8192, 0)));
        assert!(entry(0, 8192, 0).overlaps(&entry(4096, 8192, 0)));
    }

    #[test]
    fn segments_survive_json() {
        let json = serde_json::to_string(&SegmentId(u64::MAX)).unwrap();
        assert_eq!(json, "\"ffffffffffffffff\"");
        assert_eq!(serde_json::from_str::<SegmentId>(&json).unwrap(), SegmentId(u64::MAX));
        for bad in ["", "+1", "0x1", "FF", "10000000000000000"] {
            assert!(bad.parse::<SegmentId>().is_err(), "{bad}");
        }
    }
}
