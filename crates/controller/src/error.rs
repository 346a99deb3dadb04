//! What keeps a controller from starting, and how a rack's refusal is told to whoever asked.

use rackmem_api::Problem;
use rackmem_api::problem::ProblemType;
use rackmem_rack::{RackError, SegmentId};
use rackmem_state::StateError;

/// The controller cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// SQLite refuses.
    #[error("the controller's store does not work: {0}; is the disk full?")]
    Sql(#[from] sqlx::Error),
    /// A row cannot be understood.
    #[error("a row of the controller's store cannot be read: {0}")]
    Row(#[from] serde_json::Error),
    /// A deed cannot be understood.
    #[error("the stored deed of segment {0} is damaged: restore the state directory from a copy")]
    Deed(SegmentId),
    /// The stored events contradict each other.
    #[error("the stored rack contradicts itself: {0}; restore the state directory from a copy")]
    Rack(#[from] RackError),
}

/// A rack's refusal as a problem document.
pub(crate) fn problem(error: &RackError) -> Problem {
    let kind = match error {
        RackError::Name(_)
        | RackError::PortText(_)
        | RackError::Class(_)
        | RackError::Useless { .. }
        | RackError::SelfLoop { .. }
        | RackError::NoPorts { .. }
        | RackError::UnknownPort { .. }
        | RackError::Request(_) => ProblemType::Invalid,
        RackError::Unknown { .. } | RackError::UnknownReservation(_) | RackError::NoCable { .. } => {
            ProblemType::NotFound
        }
        RackError::Duplicate { .. } | RackError::PortTaken { .. } => ProblemType::Exists,
        RackError::CableInUse { .. } | RackError::InUse { .. } => ProblemType::InUse,
        RackError::State { .. } | RackError::Overtaken(_) => ProblemType::WrongState,
        RackError::Quota { .. } | RackError::Refused(_) => ProblemType::Capacity,
        RackError::ReservationNumber(_) | RackError::Snapshot(_) => ProblemType::Internal,
    };
    Problem::new(kind, error.to_string())
}
