//! The agent's memory: an SQLite file in the state directory.
//!
//! One connection writes, each transaction begins with `BEGIN IMMEDIATE`, so that none fails half way because another
//! was faster; others read. It keeps what the machine cannot tell and never what it can: whether a VM runs is asked of
//! the kernel. A second agent on the same directory is refused.

mod attachments;
mod events;
mod generation;
mod idempotency;
mod operations;
#[cfg(test)]
mod tests;
mod vms;

pub use attachments::AttachmentRow;
pub use events::EventRow;
pub use idempotency::Claim;
pub use operations::{OperationRow, OperationState};
pub use vms::VmRow;

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool, Transaction};

/// How long a reader waits for the file; the writer holds it for single statements.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// Connections that read: as many requests as an agent answers at a time.
const READERS: u32 = 4;

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made or locked.
    #[error("cannot use the state directory {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Another agent uses the directory.
    #[error("another agent uses the state directory {0}: end it first, or give this one another --state")]
    InUse(PathBuf),
    /// The tables are of another version.
    #[error("the state in {path} is not this version's: {source}")]
    Migration {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: sqlx::migrate::MigrateError,
    },
    /// SQLite refuses.
    #[error("the agent's store does not work: {0}; is the disk full?")]
    Sql(#[from] sqlx::Error),
    /// A row cannot be understood.
    #[error("a row of the agent's store cannot be read: {0}")]
    Row(#[from] serde_json::Error),
}

/// The store of one agent.
#[derive(Clone, Debug)]
pub struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
    /// Held as long as the store is: no second agent.
    _lock: Arc<File>,
}

impl Store {
    /// Opens the store in `directory`, and makes it where it is missing.
    pub async fn open(directory: &Path) -> Result<Self, StoreError> {
        let lock = lock(directory)?;
        let path = directory.join("agent.db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(BUSY_MAX)
            .journal_mode(SqliteJournalMode::Wal)
            // A record that was answered for must be there after a power cut too.
            .synchronous(SqliteSynchronous::Full);
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        sqlx::migrate!().run(&writer).await.map_err(|source| StoreError::Migration { path, source })?;
        let readers =
            SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self { writer, readers, _lock: Arc::new(lock) })
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let failed = |source| StoreError::Directory { path: directory.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let file = File::create(directory.join("lock")).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse(directory.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

/// The time that rows carry.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    Ok(serde_json::to_string(value)?)
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    Ok(serde_json::from_str(text)?)
}
