//! The state directory of an agent or a controller: a lock, and an SQLite database that is its owner's alone.
//!
//! It says how such a database is opened, and refuses one that somebody else uses or that a later version wrote. What is in it is
//! its user's matter.

mod error;
#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use sqlx::SqlitePool;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

pub use error::StateError;

/// How long a statement waits for the file.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// Mode of all files, whatever the directory's: the databases hold the secrets of segments.
const MODE: u32 = 0o600;

/// What SQLite puts beside a database, with its mode.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A state directory that nobody else uses, as long as this lives.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    database: PathBuf,
    _lock: File,
}

impl StateDirectory {
    /// Takes a directory for a `user`, for example `agent`, and makes it where it is missing, with its database `agent.db`.
    pub fn open(path: &Path, user: &'static str) -> Result<Self, StateError> {
        let unusable = |reason| StateError::Directory { path: path.to_owned(), reason };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let lock = private(&path.join("lock")).map_err(unusable)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StateError::InUse { user, path: path.to_owned() });
            }
            Err(error) => return Err(unusable(error.into())),
        }
        let opened = Self { path: path.to_owned(), database: path.join(format!("{user}.db")), _lock: lock };
        opened.guard().map_err(unusable)?;
        Ok(opened)
    }

    /// The one connection that writes. Its tables are brought up to this version.
    pub async fn writer(&self, migrator: &Migrator) -> Result<SqlitePool, StateError> {
        let options = SqlitePoolOptions::new().max_connections(1);
        let pool = options.connect_with(self.options()).await.map_err(|reason| self.sql(reason))?;
        migrator.run(&pool).await.map_err(|reason| match reason {
            MigrateError::VersionMissing(version) => StateError::Later { path: self.path.clone(), version },
            MigrateError::Execute(reason) | MigrateError::ExecuteMigration(reason, _) => self.sql(reason),
            reason => StateError::Tables { path: self.database.clone(), reason },
        })?;
        Ok(pool)
    }

    /// Connections that only read.
    pub async fn readers(&self, connections: u32) -> Result<SqlitePool, StateError> {
        let options = SqlitePoolOptions::new().max_connections(connections);
        options.connect_with(self.options().read_only(true)).await.map_err(|reason| self.sql(reason))
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.database)
            .foreign_keys(true)
            .busy_timeout(BUSY_MAX)
            .journal_mode(SqliteJournalMode::Wal)
            // What was answered for must be there after a power cut too.
            .synchronous(SqliteSynchronous::Full)
    }

    /// Makes the database's files their owner's alone, before SQLite opens them: it gives those that it adds the database's mode.
    fn guard(&self) -> io::Result<()> {
        private(&self.database)?;
        for suffix in BESIDE {
            let mut beside = self.database.clone().into_os_string();
            beside.push(suffix);
            match std::fs::set_permissions(beside, Permissions::from_mode(MODE)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn sql(&self, reason: sqlx::Error) -> StateError {
        StateError::Sql { path: self.database.clone(), reason }
    }
}

/// Opens a file that only its owner may read, and makes it where it is missing.
fn private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(path)?;
    // It may have been there before, and a umask may have taken the owner's rights too.
    file.set_permissions(Permissions::from_mode(MODE))?;
    Ok(file)
}
