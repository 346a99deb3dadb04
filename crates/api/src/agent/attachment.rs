//! Physical attachments: entries of the brick's RMC table (NetPort entries of D4.1, Appendix I).

use rackmem_types::{Bytes, PAGE_SIZE, ServerAddress};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::class::LatencyClass;
use crate::name::{AttachmentId, GroupName, VmName};
use crate::problem::{Problem, ProblemType};
use crate::schema::ServerAddressSchema;

use super::segment::{SegmentId, SegmentToken};

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
    /// The segment on it, made by whoever attaches; without it the machine's pager reserves segments there itself, as it
    /// needs them.
    #[serde(default)]
    pub segment: Option<SegmentId>,
    /// The secret that opens the segment; it has to be given with a segment and is never shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SegmentToken>,
    /// How far away it is.
    pub class: LatencyClass,
    /// The shared memory of which it is a part. No machine can have such an attachment; programs get at it with
    /// `GET /v1/shared/{group}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedPlace>,
}

/// Where an attachment lies in memory that several bricks share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedPlace {
    /// The shared memory's name.
    pub group: GroupName,
    /// The attachment's first byte in it, a multiple of 4096.
    #[schema(multiple_of = 4096, maximum = 9_007_199_254_740_991_u64, example = 0)]
    pub at: u64,
}

/// The physical attachments of a machine, as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachmentSet {
    /// Their ids, in the order in which they are used.
    pub attachments: Vec<AttachmentId>,
}

impl AttachmentSet {
    /// Whether it makes sense by itself.
    pub fn check(&self) -> Result<(), Problem> {
        for (place, id) in self.attachments.iter().enumerate() {
            if self.attachments[..place].contains(id) {
                let detail = format!("attachment '{id}' is named twice: name each once");
                return Err(Problem::new(ProblemType::Invalid, detail));
            }
        }
        Ok(())
    }
}

impl Attachment {
    /// Size of the range.
    pub fn size(&self) -> Bytes {
        Bytes(self.end.saturating_sub(self.start))
    }

    /// As it is shown to those who ask: without the secret.
    pub fn shown(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    /// The range of the segment that it is.
    pub fn range(&self) -> std::ops::Range<u64> {
        let place = |address: u64| address.saturating_add_signed(self.offset);
        place(self.start)..place(self.end)
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
        if self.segment.is_some() != self.token.is_some() {
            return invalid(format!(
                "attachment '{id}': a segment and the token that opens it are given together, or neither of them"
            ));
        }
        if let Some(SharedPlace { group, at }) = &self.shared {
            if self.segment.is_none() {
                return invalid(format!(
                    "attachment '{id}': a part of the shared memory '{group}' needs a segment and the token that opens it"
                ));
            }
            if !at.is_multiple_of(page) || at.checked_add(end - start).is_none() {
                return invalid(format!(
                    "attachment '{id}': its place {at} in '{group}' has to be a multiple of {page}"
                ));
            }
        }
        if self.class == LatencyClass::Local {
            return invalid(format!(
                "attachment '{id}': the class local is no far memory: write tray, rack or interrack"
            ));
        }
        Ok(())
    }

    /// Whether a machine can have it for itself.
    pub fn check_own(&self) -> Result<(), Problem> {
        match &self.shared {
            Some(SharedPlace { group, .. }) => {
                let detail = format!(
                    "attachment '{}' is a part of '{group}', which several bricks share: no machine can have it for itself",
                    self.id
                );
                Err(Problem::new(ProblemType::InUse, detail))
            }
            None => Ok(()),
        }
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
            token: Some(SegmentToken([7; 16])),
            class: LatencyClass::Rack,
            shared: None,
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
        assert!(Attachment { token: None, ..entry(0, 4096, 0) }.check().is_err());
        assert!(Attachment { class: LatencyClass::Local, ..entry(0, 4096, 0) }.check().is_err());
    }

    #[test]
    fn a_range_of_addresses_is_a_range_of_the_segment() {
        assert_eq!(entry(8192, 16384, -4096).range(), 4096..12288);
        assert!(!serde_json::to_string(&entry(0, 4096, 0).shown()).unwrap().contains("token"));
    }

    #[test]
    fn neighbours_do_not_overlap() {
        assert!(!entry(0, 4096, 0).overlaps(&entry(4096, 8192, 0)));
        assert!(entry(0, 8192, 0).overlaps(&entry(4096, 8192, 0)));
    }
}
