//! Memory that several bricks share: what a program on one of them needs to read and write it.

use rackmem_types::{Bytes, ServerAddress};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::attachment::Attachment;
use super::segment::{SegmentId, SegmentToken};
use crate::name::{AttachmentId, GroupName};
use crate::problem::Problem;
use crate::schema::{BytesSchema, ServerAddressSchema};

/// Shared memory, as this brick has it. Its content is on the memory servers and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SharedView {
    /// Its name.
    pub group: GroupName,
    /// Its parts, the first one first.
    pub parts: Vec<SharedPart>,
}

/// A part of shared memory: one segment's range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SharedPart {
    /// The physical attachment that it is.
    pub attachment: AttachmentId,
    /// Its first byte in the shared memory.
    pub at: u64,
    /// Its size.
    #[schema(value_type = BytesSchema)]
    pub size: Bytes,
    /// The memory server.
    #[schema(value_type = ServerAddressSchema)]
    pub server: ServerAddress,
    /// The segment on it.
    pub segment: SegmentId,
    /// Its first byte in the segment.
    pub first: u64,
    /// The secret that opens the segment.
    pub token: SegmentToken,
}

impl SharedView {
    /// The parts of `group` among a brick's attachments; a problem if there is none.
    pub fn of<'a>(
        group: &GroupName,
        entries: impl IntoIterator<Item = &'a Attachment>,
    ) -> Result<Self, Problem> {
        let part = |entry: &Attachment| {
            let place = entry.shared.as_ref().filter(|place| place.group == *group)?;
            Some(SharedPart {
                attachment: entry.id.clone(),
                at: place.at,
                size: entry.size(),
                server: entry.server.clone(),
                segment: entry.segment?,
                first: entry.range().start,
                token: entry.token?,
            })
        };
        let mut parts: Vec<_> = entries.into_iter().filter_map(part).collect();
        if parts.is_empty() {
            return Err(Problem::not_found("shared memory", group));
        }
        parts.sort_by_key(|part| part.at);
        Ok(Self { group: group.clone(), parts })
    }
}
