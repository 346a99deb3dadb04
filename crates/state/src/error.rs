//! Why a state directory cannot be used.

use std::path::PathBuf;

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory cannot be made or locked.
    #[error("cannot use the state directory {}: {reason}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        reason: std::io::Error,
    },
    /// Somebody else has it.
    #[error("another {user} uses the state directory {}: end it first, or give this one another --state", path.display())]
    InUse {
        /// What it is for, for example `agent`.
        user: &'static str,
        /// The directory.
        path: PathBuf,
    },
    /// A later version has written it.
    #[error(
        "the state in {} was written by a later version (its tables are of number {version}): start that version, or give this \
         one another --state",
        path.display()
    )]
    Later {
        /// The directory.
        path: PathBuf,
        /// The change of the tables that is not known here.
        version: i64,
    },
    /// The tables are not those of any version.
    #[error("the state in {} is not this version's: {reason}", path.display())]
    Tables {
        /// The database.
        path: PathBuf,
        /// What does not fit.
        reason: sqlx::migrate::MigrateError,
    },
    /// SQLite refuses.
    #[error("{} cannot be opened: {reason}; is the disk full?", path.display())]
    Sql {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        reason: sqlx::Error,
    },
}
