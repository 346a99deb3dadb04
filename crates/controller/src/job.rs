//! What an operation has to do, as it is stored.

use rackmem_api::{Operation, Problem};
use rackmem_rack::{Event, Name, Plan, Request, ReservationId, Step};
use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};

/// What was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// These events; they were applied when the operation was accepted.
    Register(Vec<Event>),
    /// What a brick or switch lost is set again.
    Repair(Vec<Step>),
    /// Move everything away from a brick.
    Drain(Name),
    /// A new reservation.
    Reserve { id: ReservationId, request: Box<Request>, apply: bool },
    /// Carry out what is reserved.
    Apply(ReservationId),
    /// More or less memory.
    Resize { id: ReservationId, memory: Bytes },
    /// The end of a reservation.
    Release(ReservationId),
}

impl Work {
    /// The request that a refusal can be explained for.
    pub(crate) fn request(&self) -> Option<&Request> {
        match self {
            Self::Reserve { request, .. } => Some(request),
            _ => None,
        }
    }
}

/// The work, and how far it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) work: Work,
    /// Whose it is; none for administrators' work.
    pub(crate) project: Option<String>,
    /// The plan that was accepted for it.
    pub(crate) plan: Option<Box<Plan>>,
    /// Steps that were begun. Their own column keeps them, because they change often.
    #[serde(skip)]
    pub(crate) begun: usize,
    /// The steps back, once it is being undone.
    pub(crate) undo: Option<Vec<Step>>,
    /// Steps back that were begun.
    #[serde(skip)]
    pub(crate) undone: usize,
    /// Why it is being undone.
    pub(crate) failure: Option<Problem>,
    /// Somebody asked for its end.
    pub(crate) cancel: bool,
}

impl Job {
    pub(crate) fn new(work: Work, project: Option<String>) -> Self {
        let (plan, undo, failure) = (None, None, None);
        Self { work, project, plan, begun: 0, undo, undone: 0, failure, cancel: false }
    }
}

/// An operation as the ledger has it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) operation: Operation,
    pub(crate) job: Job,
}
