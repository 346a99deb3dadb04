//! A machine's memory: how much, and where it is.

use rackmem_types::{Bytes, ServerAddress};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::elastic::GuestMemory;
use super::segment::SegmentId;
use crate::class::LatencyClass;
use crate::name::AttachmentId;
use crate::schema::{BytesSchema, ServerAddressSchema};

/// A machine's memory.
///
/// `size` is what the guest has now; `target` is what was asked for last. They differ while a resize runs, and after
/// one when the guest could give only part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmMemory {
    /// What the guest has now: base + plugged − balloon.
    #[schema(value_type = BytesSchema)]
    pub size: Bytes,
    /// What was asked for last.
    #[schema(value_type = BytesSchema)]
    pub target: Bytes,
    /// To which it can grow while it runs.
    #[schema(value_type = BytesSchema)]
    pub max: Bytes,
    /// What it starts with; it cannot be unplugged, only ballooned.
    #[schema(value_type = BytesSchema)]
    pub base: Bytes,
    /// Plugged beside the base now.
    #[schema(value_type = BytesSchema)]
    pub plugged: Bytes,
    /// Taken from the guest by the balloon now.
    #[schema(value_type = BytesSchema)]
    pub ballooned: Bytes,
    /// How much may be resident in the brick's RAM; without it all of it.
    #[schema(value_type = Option<BytesSchema>)]
    pub local_limit: Option<Bytes>,
    /// Resident in the brick's RAM now.
    #[schema(value_type = BytesSchema)]
    pub local: Bytes,
    /// Only on memory servers now.
    #[schema(value_type = BytesSchema)]
    pub far: Bytes,
    /// Where the far memory is.
    pub parts: Vec<FarPart>,
    /// What the guest says of its memory, where it says something.
    pub guest: Option<GuestMemory>,
}

/// A machine's far memory in one segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FarPart {
    /// The memory server.
    #[schema(value_type = ServerAddressSchema)]
    pub server: ServerAddress,
    /// The segment, where it is known; without it the sum of all segments on that server.
    pub segment: Option<SegmentId>,
    /// How far away it is, where that is known.
    pub class: Option<LatencyClass>,
    /// The physical attachment that it belongs to.
    pub attachment: Option<AttachmentId>,
    /// Reserved there.
    #[schema(value_type = BytesSchema)]
    pub reserved: Bytes,
    /// In use there.
    #[schema(value_type = BytesSchema)]
    pub used: Bytes,
    /// How the memory server is.
    pub state: FarState,
}

/// How a memory server is, as its user sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FarState {
    /// It answers.
    Up,
    /// The connection broke and is being made again.
    Reconnecting,
    /// It is lost with what it held.
    Lost,
}
