//! From what went wrong inside to what the API says of it.

use rackmem_api::Problem;
use rackmem_api::problem::ProblemType;
use rackmem_qemu::QemuError;

use crate::store::StoreError;

/// What the API says of a failure of QEMU.
pub(crate) fn from_qemu(error: &QemuError) -> Problem {
    use QemuError as Q;
    let kind = match error {
        Q::Name(_) | Q::Config { .. } | Q::File { .. } | Q::NotAnImage { .. } | Q::GuestAddress { .. } => {
            ProblemType::Invalid
        }
        Q::RelativeDirectory(_) | Q::SocketPath { .. } => ProblemType::Invalid,
        Q::Unable { .. } | Q::Missing { .. } => ProblemType::Unsupported,
        Q::NotRunning(_) => ProblemType::WrongState,
        Q::Timeout { .. } | Q::StartTimeout { .. } => ProblemType::Timeout,
        Q::System { .. } | Q::Seed { .. } => ProblemType::Internal,
        _ => ProblemType::Backend,
    };
    Problem::new(kind, error.to_string())
}

/// What the API says of a failure of the store.
pub(crate) fn from_store(error: StoreError) -> Problem {
    match error {
        StoreError::Refused(problem) => *problem,
        // Nothing was changed; whoever fills the disk may free it.
        error if error.may_pass() => {
            tracing::error!(%error, "the store failed");
            Problem::new(ProblemType::Unavailable, error.to_string()).retry_after(5)
        }
        error => {
            tracing::error!(%error, "the store failed");
            Problem::new(ProblemType::Internal, error.to_string())
        }
    }
}

/// What the API says where the kernel refuses.
pub(crate) fn system(what: &str, error: impl std::fmt::Display) -> Problem {
    Problem::new(ProblemType::Internal, format!("cannot {what}: {error}"))
}

/// It cannot be done in the state in which the thing is.
pub(crate) fn wrong_state(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemType::WrongState, detail)
}

/// What is asked for makes no sense.
pub(crate) fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemType::Invalid, detail)
}
