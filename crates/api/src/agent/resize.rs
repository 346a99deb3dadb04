//! Changing a machine's memory while it runs.

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::VmName;
use crate::schema::BytesSchema;

/// What a machine is to have. At least one of `memory` and `local` is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResizeRequest {
    /// Memory of the guest.
    #[schema(value_type = Option<BytesSchema>)]
    pub memory: Option<Bytes>,
    /// How much of it may be resident in the brick's RAM.
    #[schema(value_type = Option<BytesSchema>)]
    pub local: Option<Bytes>,
    /// Only tell what would be done (`200` with a [`ResizePlan`]), and do nothing.
    pub plan: bool,
    /// Allow steps that restart the guest.
    pub restart: bool,
}

/// What a resize would do, or does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResizePlan {
    /// The machine.
    pub vm: VmName,
    /// What the guest has now.
    #[schema(value_type = BytesSchema)]
    pub from: Bytes,
    /// What it is to have.
    #[schema(value_type = BytesSchema)]
    pub to: Bytes,
    /// The steps, in their order.
    pub steps: Vec<ResizeStep>,
    /// Whether a step restarts the guest; without `restart` in the request it is refused.
    pub restart: bool,
    /// What may turn out otherwise, as sentences.
    pub warnings: Vec<String>,
}

/// One step of a resize: one mechanism goes from one amount to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResizeStep {
    /// By what.
    pub mechanism: Mechanism,
    /// The mechanism's amount before: the balloon's size, plugged memory, the local limit.
    #[schema(value_type = BytesSchema)]
    pub from: Bytes,
    /// Its amount afterwards.
    #[schema(value_type = BytesSchema)]
    pub to: Bytes,
    /// What it may cost.
    pub cost: StepCost,
}

/// By what a machine's memory is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// The balloon gives memory back to the guest, or takes it.
    Balloon,
    /// A virtio-mem device plugs blocks, or the guest gives them back.
    VirtioMem,
    /// A DIMM is plugged, or ejected by the guest.
    Dimm,
    /// The pager's limit of resident memory.
    LocalLimit,
    /// The guest is stopped and started with another amount.
    Restart,
}

/// What a step may cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepCost {
    /// Expected time in milliseconds.
    pub expected_ms: u64,
    /// Whether the guest may give or take only part.
    pub may_stop_short: bool,
    /// What it means for the guest, as a sentence.
    pub effect: String,
}
