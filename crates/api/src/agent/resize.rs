//! Changing a machine's memory while it runs.

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::VmName;
use crate::problem::{Problem, ProblemType};
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

/// Least memory that a guest runs with: a kernel, and as much again to work with.
pub const RUNNING_MIN: Bytes = Bytes(96 << 20);

impl ResizeRequest {
    /// Whether the request makes sense for a machine that can have `max`.
    pub fn check(&self, max: Bytes) -> Result<(), Problem> {
        let detail = match self {
            Self { memory: None, local: None, .. } => "give memory, local or both".to_owned(),
            Self { memory: Some(memory), .. } if *memory < RUNNING_MIN => {
                format!("memory {memory} is too little: no guest runs with less than {RUNNING_MIN}")
            }
            Self { memory: Some(memory), .. } if *memory > max => format!(
                "memory {memory} is more than the machine can have while it runs ({max}): give less, or make it \
                 anew with a larger memory_max"
            ),
            Self { local: Some(Bytes(0)), .. } => {
                "local is 0: a guest needs some resident memory, give at least a few MiB".to_owned()
            }
            _ => return Ok(()),
        };
        Err(Problem::new(ProblemType::Invalid, detail))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_make_no_sense_are_refused() {
        let request = |memory: Option<u64>, local: Option<u64>| {
            let request = ResizeRequest {
                memory: memory.map(Bytes),
                local: local.map(Bytes),
                ..ResizeRequest::default()
            };
            request.check(Bytes(1 << 30)).is_ok()
        };
        assert!(request(Some(1 << 30), None) && request(None, Some(1)));
        assert!(!request(None, None) && !request(Some((1 << 30) + 1), None));
        assert!(!request(Some(1), None) && !request(None, Some(0)));
    }
}
