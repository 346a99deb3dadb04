//! Durable operations: how long work is asked for, watched and cancelled.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::problem::{Problem, ProblemType};

/// Identity of an operation. A version 7 UUID where the maker wants them to sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(into = "String", try_from = "String")]
#[schema(value_type = String, format = "uuid")]
pub struct OperationId(pub Uuid);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not an operation's identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the id of an operation: 'rackmem operation list' shows them")]
pub struct ParseOperationIdError(String);

impl FromStr for OperationId {
    type Err = ParseOperationIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| ParseOperationIdError(text.to_owned()))
    }
}

impl TryFrom<String> for OperationId {
    type Error = ParseOperationIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<OperationId> for String {
    fn from(id: OperationId) -> Self {
        id.to_string()
    }
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OperationState {
    /// Accepted; steps are being done or are still to do.
    Running,
    /// All steps are done.
    Done,
    /// A step failed; what was done before it has been undone.
    Failed,
    /// It was cancelled; what was done has been undone.
    Cancelled,
}

impl OperationState {
    /// Whether nothing will change any more.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Running)
    }
}

/// Work that was accepted and goes on whatever becomes of the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Its identity.
    pub id: OperationId,
    /// What is done, for example `vm.create`.
    #[schema(example = "vm.create")]
    pub kind: String,
    /// What it is done to, for example the name of a virtual machine.
    #[schema(example = "web1")]
    pub target: String,
    /// How far it is.
    pub state: OperationState,
    /// The step that is being done, or was the last one, as a phrase for people.
    pub step: Option<String>,
    /// Share of the work that is done, 0 to 1. Never falls, except when what was done is being undone.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub progress: f64,
    /// Why it failed.
    pub error: Option<Problem>,
    /// What whoever asked should know of a success, for example that a guest gave back only part.
    pub note: Option<String>,
    /// The generation under which it was accepted.
    pub generation: u64,
    /// Who asked.
    pub by: String,
    /// When it was accepted, milliseconds since 1970.
    pub created_ms: u64,
    /// When it changed last, milliseconds since 1970.
    pub updated_ms: u64,
}

/// Which operations to list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OperationFilter {
    /// Only those in this state.
    #[param(nullable = false)]
    pub state: Option<OperationState>,
    /// Only those done to this target.
    #[param(nullable = false)]
    pub target: Option<String>,
    /// At most so many, the newest first.
    #[param(nullable = false, minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// Operations in a list when no limit is asked for.
pub const LIST_DEFAULT: u32 = 100;

/// Operations in a list at most: about half a megabyte of JSON.
pub const LIST_MAX: u32 = 1000;

impl OperationFilter {
    /// Whether the limit is one that an answer may have.
    pub fn check(&self) -> Result<(), Problem> {
        match self.limit {
            Some(limit) if !(1..=LIST_MAX).contains(&limit) => {
                let detail = format!("limit {limit}: give 1 to {LIST_MAX}");
                Err(Problem::new(ProblemType::Malformed, detail))
            }
            _ => Ok(()),
        }
    }

    /// How many to list.
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(LIST_DEFAULT) as usize
    }

    /// Whether `operation` is meant.
    pub fn matches(&self, operation: &Operation) -> bool {
        self.state.is_none_or(|state| state == operation.state)
            && self.target.as_ref().is_none_or(|target| *target == operation.target)
    }
}

/// How long to wait for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// Seconds to wait at most; the answer then is the operation as it is.
    #[serde(default = "wait_default_s")]
    #[param(minimum = 0, maximum = 300, default = 30)]
    pub timeout: u32,
}

/// Seconds a wait takes when no time is given.
pub const WAIT_DEFAULT_S: u32 = 30;

/// Longest wait in one request: longer than this, proxies cut connections.
pub const WAIT_MAX_S: u32 = 300;

impl WaitQuery {
    /// Whether the time is one that a request may take.
    pub fn check(self) -> Result<(), Problem> {
        if self.timeout <= WAIT_MAX_S {
            return Ok(());
        }
        let detail =
            format!("timeout {} is too long: wait at most {WAIT_MAX_S} seconds, and ask again", self.timeout);
        Err(Problem::new(ProblemType::Malformed, detail))
    }
}

const fn wait_default_s() -> u32 {
    WAIT_DEFAULT_S
}
