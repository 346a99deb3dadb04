//! Reservations (S10): what is wanted, what was planned, and what is held.

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::class::LatencyClass;
use crate::problem::{Problem, ProblemType};
use crate::schema::BytesSchema;

/// An accelerator that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceleratorNew {
    /// The model; without it any.
    #[serde(default)]
    pub model: Option<String>,
    /// How many regions of it.
    pub slots: u32,
}

/// Shared memory that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum GroupNew {
    /// A new group of that name.
    Init(String),
    /// All memory of a group that is there.
    Join(String),
}

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReservationNew {
    /// The project that it counts against; a member's own if it is left out.
    #[serde(default)]
    pub project: Option<String>,
    /// The compute brick; without it any that fits.
    #[serde(default)]
    pub compute: Option<String>,
    /// Cores on it.
    #[serde(default)]
    pub cores: u32,
    /// Local memory on it.
    #[serde(default)]
    #[schema(value_type = BytesSchema)]
    pub local: Bytes,
    /// Far memory; rounded up to whole pages.
    #[serde(default)]
    #[schema(value_type = BytesSchema)]
    pub memory: Bytes,
    /// How far away that memory may be.
    pub class: LatencyClass,
    /// How many memory bricks it may be spread over.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 16)]
    pub spread: Option<u8>,
    /// An accelerator beside it.
    #[serde(default)]
    pub accelerator: Option<AcceleratorNew>,
    /// Shared memory instead of memory of one's own.
    #[serde(default)]
    pub group: Option<GroupNew>,
    /// Seconds after which the reservation ends if nobody has begun to apply it.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub expires_s: Option<u32>,
    /// Whether it is carried out at once; else it only holds what it needs until it is applied.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub apply: bool,
    /// Whether to answer the plan and do nothing.
    #[serde(default)]
    pub preview: bool,
}

const fn yes() -> bool {
    true
}

impl ReservationNew {
    /// `memory` within `class`, and nothing else.
    pub fn memory(compute: Option<String>, memory: Bytes, class: LatencyClass) -> Self {
        Self {
            project: None,
            compute,
            cores: 0,
            local: Bytes(0),
            memory,
            class,
            spread: None,
            accelerator: None,
            group: None,
            expires_s: None,
            apply: true,
            preview: false,
        }
    }

    /// Whether it makes sense by itself.
    pub fn check(&self) -> Result<(), Problem> {
        let invalid = |detail: &str| Err(Problem::new(ProblemType::Invalid, detail));
        let nothing = self.memory.0 == 0 && self.local.0 == 0 && self.cores == 0;
        if nothing && self.accelerator.is_none() && self.group.is_none() {
            return invalid("it asks for nothing: give 'memory', 'local', 'cores' or an 'accelerator'");
        }
        if self.class == LatencyClass::Local {
            if self.memory.0 > 0 || self.group.is_some() {
                return invalid(
                    "'class': far memory cannot be of class local: give tray, rack or interrack, or ask for 'local' alone",
                );
            }
            if self.accelerator.is_some() {
                return invalid(
                    "'class': an accelerator is never of class local: give tray, rack or interrack",
                );
            }
        }
        if self.spread.is_some_and(|spread| !(1..=16).contains(&spread)) {
            return invalid("'spread': give 1 to 16 memory bricks");
        }
        if self.expires_s == Some(0) {
            return invalid("'expires_s': give at least one second");
        }
        if self.expires_s.is_some() && self.apply {
            return invalid(
                "'expires_s': a reservation that is applied at once cannot expire: give apply=false",
            );
        }
        if self.project.as_ref().is_some_and(|name| name.is_empty() || name.len() > 63) {
            return invalid("'project': write 1 to 63 characters");
        }
        Ok(())
    }
}

/// How much memory a reservation shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReservationResize {
    /// Far memory, more or less than it has.
    #[schema(value_type = BytesSchema)]
    pub memory: Bytes,
}

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SegmentView {
    /// Its number, `RESERVATION.PART`.
    pub id: String,
    /// The memory brick.
    pub brick: String,
    /// Its size.
    #[schema(value_type = BytesSchema)]
    pub size: Bytes,
}

/// A plan: everything that would be done, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    /// The compute brick.
    pub compute: String,
    /// Bricks that are off and would be woken.
    pub wake: Vec<String>,
    /// The segments that it would make.
    pub segments: Vec<SegmentView>,
    /// Circuits that it would set, each as the ports from the compute brick to the other end.
    pub circuits: Vec<Vec<String>>,
    /// The steps, as sentences.
    pub steps: Vec<String>,
}

/// A segment as the compute brick maps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MappingView {
    /// The segment, and the name of its attachment on the compute brick.
    pub segment: SegmentView,
    /// The attachment's name on the compute brick.
    pub attachment: String,
    /// First address in the compute brick's far address space.
    pub start: u64,
    /// The memory server has lost it.
    pub lost: bool,
}

/// The accelerator of a reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AcceleratorView {
    /// The accelerator brick.
    pub brick: String,
    /// How many of its regions.
    pub slots: u32,
}

/// A reservation as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReservationView {
    /// Its number.
    pub id: u64,
    /// The project that it counts against.
    pub project: String,
    /// The compute brick.
    pub compute: String,
    /// Where it stands: reserved, applying, applied or releasing.
    pub state: String,
    /// How far away its memory may be.
    pub class: LatencyClass,
    /// Cores on the compute brick.
    pub cores: u32,
    /// Local memory on it.
    #[schema(value_type = BytesSchema)]
    pub local: Bytes,
    /// Far memory that it has.
    #[schema(value_type = BytesSchema)]
    pub memory: Bytes,
    /// Where that is.
    pub mappings: Vec<MappingView>,
    /// The accelerator that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub accelerator: Option<AcceleratorView>,
    /// The shared group that it is in.
    pub group: Option<String>,
    /// When it ends if nobody applies it, milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

/// What one brick means for a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReasonView {
    /// The brick.
    pub brick: String,
    /// Its kind.
    pub kind: String,
    /// Whether it could serve, alone or as one of several.
    pub serves: bool,
    /// Why, as a sentence.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_local_is_for_what_a_compute_brick_has_itself() {
        let own = ReservationNew { local: Bytes(1 << 30), ..of(0) };
        assert_eq!(own.check(), Ok(()));
        let joins = ReservationNew { group: Some(GroupNew::Join("pool".to_owned())), ..of(0) };
        let accelerator = Some(AcceleratorNew { model: None, slots: 1 });
        let beside = ReservationNew { accelerator, ..own };
        for new in [of(1 << 30), joins, beside] {
            let problem = new.check().unwrap_err();
            assert_eq!(problem.kind, ProblemType::Invalid);
            assert!(problem.detail.contains("give tray, rack or interrack"), "{problem}");
        }
    }

    fn of(memory: u64) -> ReservationNew {
        ReservationNew::memory(None, Bytes(memory), LatencyClass::Local)
    }
}
