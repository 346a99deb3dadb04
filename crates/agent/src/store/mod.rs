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

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rackmem_api::{Generation, Problem};
use rackmem_state::{StateDirectory, StateError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{Sqlite, SqlitePool, Transaction};

/// Connections that read: as many requests as an agent answers at a time.
const READERS: u32 = 4;

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
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

impl StoreError {
    /// Whether the same may be done later, without anything else than the disk having changed.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Sql(_))
    }
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
    _directory: Arc<StateDirectory>,
}

impl Store {
    /// Opens the store in `directory`, and makes it where it is missing.
    pub(crate) async fn open(directory: &Path) -> Result<Self, StoreError> {
        let directory = StateDirectory::open(directory, "agent")?;
        let writer = directory.writer(&sqlx::migrate!()).await?;
        let readers = directory.readers(READERS).await?;
        Ok(Self { writer, readers, _directory: Arc::new(directory) })
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
