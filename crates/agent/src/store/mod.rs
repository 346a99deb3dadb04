//! The agent's memory: an SQLite file in the state directory.
//!
//! One connection writes, each transaction begins with `BEGIN IMMEDIATE`, so that none fails half way because another
//! was faster; others read. It keeps what the machine cannot tell and never what it can: whether a VM runs is asked of
//! the kernel. A second agent on the same directory is refused.

mod accept;
mod attachments;
mod events;
mod operations;
#[cfg(test)]
mod tests;
mod vms;

pub(crate) use accept::{Effect, NewOperation};
pub(crate) use attachments::AttachmentRow;
pub(crate) use operations::{Ending, OpenOperation, Progress};

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rackmem_api::{Generation, Problem};
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
    #[error("cannot use the state directory {}: {reason}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        reason: std::io::Error,
    },
    /// Another agent uses the directory.
    #[error("another agent uses the state directory {}: end it first, or give this one another --state", .0.display())]
    InUse(PathBuf),
    /// The tables are of another version.
    #[error("the state in {} is not this version's: {reason}", path.display())]
    Migration {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: sqlx::migrate::MigrateError,
    },
    /// SQLite refuses.
    #[error("the agent's store does not work: {0}; is the disk full?")]
    Sql(#[from] sqlx::Error),
    /// A row cannot be understood.
    #[error("a row of the agent's store cannot be read: {0}")]
    Row(#[from] serde_json::Error),
    /// What is asked for contradicts what is there; nothing was changed.
    #[error("{0}")]
    Refused(Box<Problem>),
}

impl From<Problem> for StoreError {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}

/// The store of one agent.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
    /// Held as long as the store is: no second agent.
    _lock: Arc<File>,
}

impl Store {
    /// Opens the store in `directory`, and makes it where it is missing.
    pub(crate) async fn open(directory: &Path) -> Result<Self, StoreError> {
        let lock = lock(directory)?;
        let path = directory.join("agent.db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(BUSY_MAX)
            .journal_mode(SqliteJournalMode::Wal)
            // What was answered for must be there after a power cut too.
            .synchronous(SqliteSynchronous::Full);
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        sqlx::migrate!().run(&writer).await.map_err(|reason| StoreError::Migration { path, reason })?;
        let readers =
            SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self { writer, readers, _lock: Arc::new(lock) })
    }

    /// The highest generation seen.
    pub(crate) async fn generation(&self) -> Result<Generation, StoreError> {
        let highest: i64 =
            sqlx::query_scalar("SELECT highest FROM generation").fetch_one(&self.readers).await?;
        Ok(Generation(highest.cast_unsigned()))
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let failed = |reason| StoreError::Directory { path: directory.to_owned(), reason };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let file = File::create(directory.join("lock")).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse(directory.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

/// The time that rows carry: milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// SQLite has signed numbers only; none of ours comes near the end of them.
fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    Ok(serde_json::to_string(value)?)
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    Ok(serde_json::from_str(text)?)
}
