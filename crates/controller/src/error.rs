//! What keeps a controller from starting, and how a rack's refusal is told to whoever asked.

use std::path::PathBuf;

use rackmem_api::Problem;
use rackmem_api::problem::ProblemType;
use rackmem_rack::{RackError, SegmentId};

/// The controller cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The directory cannot be made or locked.
    #[error("cannot use the state directory {}: {reason}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        reason: std::io::Error,
    },
    /// Another controller uses the directory.
    #[error("another controller uses the state directory {}: end it first, or give this one another --state", .0.display())]
    InUse(PathBuf),
    /// The tables are of another version.
    #[error("the state is not this version's: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
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
