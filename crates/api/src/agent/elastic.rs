//! Elastic machines: their memory follows the guest's need.

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::resize::RUNNING_MIN;
use crate::problem::{Problem, ProblemType};
use crate::schema::BytesSchema;

/// Between which sizes a machine follows its guest's need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ElasticBounds {
    /// It never has less.
    #[schema(value_type = BytesSchema)]
    pub min: Bytes,
    /// It never has more.
    #[schema(value_type = BytesSchema)]
    pub max: Bytes,
}

impl ElasticBounds {
    /// Whether the bounds make sense for a machine that can have `memory_max`.
    pub fn check(&self, memory_max: Bytes) -> Result<(), Problem> {
        let Self { min, max } = self;
        let detail = if *min < RUNNING_MIN {
            format!("min {min} is too little: no guest runs with less than {RUNNING_MIN}")
        } else if min > max {
            format!("min {min} is more than max {max}: let min be at most max")
        } else if *max > memory_max {
            format!("max {max} is more than the machine can have ({memory_max}): give a smaller max")
        } else {
            return Ok(());
        };
        Err(Problem::new(ProblemType::Invalid, detail))
    }
}

/// How a machine follows its guest's need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ElasticView {
    /// Between which sizes.
    pub bounds: ElasticBounds,
    /// What was decided last, newest last.
    pub decisions: Vec<ElasticDecision>,
}

/// One decision to grow or to shrink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ElasticDecision {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// What the guest had.
    #[schema(value_type = BytesSchema)]
    pub from: Bytes,
    /// What it is to have.
    #[schema(value_type = BytesSchema)]
    pub to: Bytes,
    /// Why, as a sentence.
    pub reason: String,
}

/// What a guest says of its memory, through the balloon's statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GuestMemory {
    /// All that its kernel manages.
    #[schema(value_type = BytesSchema)]
    pub total: Bytes,
    /// What programs could have without swapping.
    #[schema(value_type = BytesSchema)]
    pub available: Bytes,
    /// Free and unused.
    #[schema(value_type = BytesSchema)]
    pub free: Bytes,
    /// Swapped in since its boot.
    #[schema(value_type = BytesSchema)]
    pub swapped_in: Bytes,
    /// Swapped out since its boot.
    #[schema(value_type = BytesSchema)]
    pub swapped_out: Bytes,
    /// Major faults since its boot.
    pub major_faults: u64,
    /// When it said so, milliseconds since 1970.
    pub at_ms: u64,
}
