//! What far memory a target may use, said while it runs.

use std::fmt;

use rackmem_types::{Bytes, ServerAddress};
use serde::{Deserialize, Serialize};

/// All far memory that a target may use: a whole statement, so that it can be made again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lending {
    /// The memory servers on which its pager may reserve segments.
    pub servers: Vec<ServerAddress>,
    /// Parts of segments that somebody else made for it.
    pub segments: Vec<LentSegment>,
    /// At most this much far memory; without it as much as the memory servers give.
    pub far_max: Option<Bytes>,
}

/// A part of a segment that somebody else made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LentSegment {
    /// The memory server that has it.
    pub server: ServerAddress,
    /// Its id there.
    pub segment: u64,
    /// What opens it.
    pub token: [u8; 16],
    /// The first page of the part.
    pub first: u64,
    /// Pages of the part.
    pub pages: u64,
}

impl fmt::Debug for LentSegment {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, segment, first, pages, .. } = self;
        write!(f, "pages {first}+{pages} of segment {segment:#x} on {server}")
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LendReport {
    /// It is in force.
    InForce,
    /// Nothing changed, because what lies on something that is not named any more cannot be moved: why, as a sentence.
    InUse(String),
}
