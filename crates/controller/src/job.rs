//! What an operation has to do, as it is stored.

use rackmem_api::problem::ProblemType;
use rackmem_api::{Operation, Problem, VmName};
use rackmem_rack::{Event, Name, Rack, Request, ReservationId, Step, planner};
use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};

use crate::compute::{Course, Leg, MachineWork};
use crate::planning::goes_on;

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
    /// A virtual machine.
    Machine { name: VmName, what: MachineWork },
}

impl Work {
    /// The reservation that it makes.
    pub(crate) fn makes(&self) -> Option<ReservationId> {
        match self {
            Self::Reserve { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// The request that a refusal can be explained for: of a drain what still has to be moved.
    pub(crate) fn request(&self, rack: &Rack) -> Option<Request> {
        match self {
            Self::Reserve { request, .. } | Self::Machine { what: MachineWork::Create { request }, .. } => {
                Some(Request::clone(request))
            }
            Self::Drain(brick) => planner::drain_request(rack, brick),
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
    /// What is done for it; its plan was accepted.
    pub(crate) course: Option<Box<Course>>,
    /// The memory that a guest said to have after it.
    pub(crate) told: Option<Bytes>,
    /// Legs that were begun. Their own column keeps them, because they change often.
    #[serde(skip)]
    pub(crate) begun: usize,
    /// The way back, once it is being undone.
    pub(crate) undo: Option<Vec<Leg>>,
    /// Legs of the way back that were begun.
    #[serde(skip)]
    pub(crate) undone: usize,
    /// Why it is being undone.
    pub(crate) failure: Option<Problem>,
    /// Somebody asked for its end.
    pub(crate) cancel: bool,
    /// Who that was.
    #[serde(default)]
    pub(crate) cancelled_by: Option<String>,
}

impl Job {
    pub(crate) fn new(work: Work, project: Option<String>) -> Self {
        Self {
            work,
            project,
            course: None,
            told: None,
            begun: 0,
            undo: None,
            undone: 0,
            failure: None,
            cancel: false,
            cancelled_by: None,
        }
    }

    /// Whether nothing was decided for it yet, nor done.
    pub(crate) fn is_untouched(&self) -> bool {
        let has_plans = !matches!(self.work, Work::Repair(_));
        has_plans && self.course.is_none() && self.undo.is_none() && self.told.is_none()
    }

    /// Whether asking for its end can still change anything: something of it is to be decided yet, or what was begun can be undone.
    pub(crate) fn can_be_cancelled(&self, rack: &Rack) -> bool {
        match (&self.work, &self.undo, &self.course) {
            (Work::Repair(_), ..) => false,
            // It is being undone.
            (_, Some(_), _) => true,
            (_, None, None) => self.told.is_none(),
            (_, None, Some(course)) => {
                let more_follows = goes_on(self) && self.told.is_none();
                more_follows || course.turns_back(rack, self.begun)
            }
        }
    }

    /// Why it ends when it is cancelled.
    pub(crate) fn cancellation(&self, what: &str) -> Problem {
        let by = self.cancelled_by.as_deref().unwrap_or("somebody");
        Problem::new(ProblemType::Cancelled, format!("it was cancelled by {by}, and {what}"))
    }
}

/// An operation as the ledger has it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) operation: Operation,
    pub(crate) job: Job,
}
