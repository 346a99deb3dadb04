//! The controller's memory: an SQLite file in the state directory, written by one task.
//!
//! Changes come in the order in which the ledger made them; all that wait are one transaction. A change is answered for when
//! its transaction is on the disk. When a transaction fails, nothing more is written, because the ledger is ahead of its store then:
//! the server is told to end, and a controller that is started anew knows what is on the disk.

mod batch;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::StreamExt;
use rackmem_api::serve::Closing;
use rackmem_api::{IdempotencyKey, VmName};
use rackmem_rack::{Event as RackEvent, Name, Plan, Rack, SegmentId, Snapshot};
use rackmem_state::StateDirectory;
use sqlx::{SqliteConnection, SqlitePool};
use tokio::sync::{mpsc, oneshot};

use self::batch::Batch;
use crate::compute::Machine;
use crate::deed::{Deed, Placed};
use crate::error::ControllerError;
use crate::job::Entry;
use crate::news::News;

/// Changes in one transaction at most: a commit costs a few milliseconds on a disk, and nobody shall wait for many.
const BATCH_MAX: usize = 512;

/// Events that are kept for listeners who were away.
const EVENTS_MAX: i64 = 20_000;

/// Changes of the rack that are kept for people who ask what happened.
const HISTORY_MAX: i64 = 200_000;

/// One row to be written.
#[derive(Debug)]
pub(crate) enum Row {
    /// A new operation.
    Operation { seq: u64, entry: Box<Entry>, key: Option<IdempotencyKey> },
    /// An operation that changed.
    Changed { seq: u64, entry: Box<Entry> },
    /// How many of an operation's steps, and steps back, were begun.
    Begun { seq: u64, begun: usize, undone: usize },
    /// Something happened to the rack.
    Rack { seq: u64, at_ms: u64, operation: Option<String>, event: Box<RackEvent> },
    /// A plan is held.
    PlanHeld(u64, Box<Plan>),
    /// A plan is no longer only held.
    PlanGone(u64),
    /// The reservation number that was given last.
    Reservation(u64),
    /// A virtual machine, new or changed.
    Machine(Box<Machine>),
    /// A virtual machine is no more.
    MachineGone(VmName),
    /// Something to be told.
    Told(Box<News>),
    /// The rack as it is after the event of that number, in parts.
    Snapshot(u64, Vec<Snapshot>),
    /// A deed as it is now.
    Deed(SegmentId, Box<Deed>),
    /// The deed of a segment that is gone.
    DeedGone(SegmentId),
    /// A finished operation is forgotten.
    Forget(u64),
}

/// A change: rows that are written together or not at all.
pub(crate) type Change = (Vec<Row>, oneshot::Sender<()>);

/// All that is stored.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) reign: u64,
    pub(crate) reservation: u64,
    /// The rack as it was last.
    pub(crate) rack: Rack,
    pub(crate) snapshot_seq: u64,
    pub(crate) history_seq: u64,
    pub(crate) operations: Vec<(u64, Entry, Option<IdempotencyKey>)>,
    pub(crate) plans: Vec<(u64, Plan)>,
    pub(crate) deeds: BTreeMap<SegmentId, Deed>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) events: Vec<News>,
}

/// The store of one controller.
#[derive(Debug)]
pub(crate) struct Store {
    pool: SqlitePool,
    closing: Closing,
    /// Held as long as the store is: no second controller.
    _directory: StateDirectory,
}

impl Store {
    /// Opens the store in a directory, and makes it where it is missing. `closing` fails when the store does.
    pub(crate) async fn open(directory: &Path, closing: Closing) -> Result<Self, ControllerError> {
        let directory = StateDirectory::open(directory, "controller")?;
        let pool = directory.writer(&sqlx::migrate!()).await?;
        Ok(Self { pool, closing, _directory: directory })
    }

    /// Begins a reign, which is above every earlier one and at least `at_least`, and reads all that is stored.
    pub(crate) async fn load(&self, at_least: u64) -> Result<Stored, ControllerError> {
        sqlx::query("UPDATE state SET reign = MAX(reign + 1, ?)")
            .bind(at_least.cast_signed())
            .execute(&self.pool)
            .await?;
        let (reign, reservation, snapshot_seq): (i64, i64, i64) =
            sqlx::query_as("SELECT reign, reservation, snapshot_seq FROM state")
                .fetch_one(&self.pool)
                .await?;
        let mut stored = Stored {
            reign: reign.cast_unsigned(),
            reservation: reservation.cast_unsigned(),
            snapshot_seq: snapshot_seq.cast_unsigned(),
            history_seq: snapshot_seq.cast_unsigned(),
            ..Stored::default()
        };
        stored.rack = Rack::restore(self.snapshot().await?)?;
        // One event after the other: all of them at once would be more than the rack itself.
        let mut history = sqlx::query_as("SELECT seq, event FROM history WHERE seq > ? ORDER BY seq")
            .bind(snapshot_seq)
            .fetch(&self.pool);
        while let Some(next) = history.next().await {
            let (seq, event): (i64, String) = next?;
            stored.rack.apply(&serde_json::from_str(&event)?)?;
            stored.history_seq = seq.cast_unsigned();
        }
        drop(history);
        stored.operations = self.operations().await?;
        let plans: Vec<(i64, String)> =
            sqlx::query_as("SELECT reservation, plan FROM plans").fetch_all(&self.pool).await?;
        for (id, plan) in plans {
            stored.plans.push((id.cast_unsigned(), serde_json::from_str(&plan)?));
        }
        stored.deeds = self.deeds().await?;
        let machines: Vec<String> =
            sqlx::query_scalar("SELECT record FROM machines").fetch_all(&self.pool).await?;
        stored.machines =
            machines.iter().map(|record| serde_json::from_str(record)).collect::<Result<_, _>>()?;
        let events: Vec<String> =
            sqlx::query_scalar("SELECT event FROM events ORDER BY id").fetch_all(&self.pool).await?;
        stored.events = events.iter().map(|event| serde_json::from_str(event)).collect::<Result<_, _>>()?;
        Ok(stored)
    }

    async fn deeds(&self) -> Result<BTreeMap<SegmentId, Deed>, ControllerError> {
        type Columns = (i64, String, Vec<u8>, Option<i64>, Option<i64>);
        let rows: Vec<Columns> = sqlx::query_as("SELECT segment, brick, owner, id, epoch FROM deeds")
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter()
            .map(|(segment, brick, owner, id, epoch)| {
                let damaged = |_| ControllerError::Deed(SegmentId(segment.cast_unsigned()));
                let place = id
                    .zip(epoch)
                    .map(|(id, epoch)| Placed { id: id.cast_unsigned(), epoch: epoch.cast_unsigned() });
                let owner = owner.try_into().map_err(damaged)?;
                let brick = brick.parse::<Name>()?;
                Ok((SegmentId(segment.cast_unsigned()), Deed { brick, owner, place }))
            })
            .collect()
    }

    async fn snapshot(&self) -> Result<Snapshot, ControllerError> {
        let mut parts = sqlx::query_scalar("SELECT rack FROM snapshot ORDER BY part").fetch(&self.pool);
        let mut snapshot = Snapshot::default();
        while let Some(part) = parts.next().await {
            let part: String = part?;
            snapshot.add(serde_json::from_str(&part)?);
        }
        Ok(snapshot)
    }

    async fn operations(&self) -> Result<Vec<(u64, Entry, Option<IdempotencyKey>)>, ControllerError> {
        type Columns = (i64, String, String, i64, i64, Option<String>, Option<i64>);
        let rows: Vec<Columns> = sqlx::query_as(
            "SELECT seq, record, job, begun, undone, idempotency_key, fingerprint FROM operations ORDER BY seq",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|(seq, record, job, begun, undone, key, fingerprint)| {
                let mut entry =
                    Entry { operation: serde_json::from_str(&record)?, job: serde_json::from_str(&job)? };
                entry.job.begun = begun as usize;
                entry.job.undone = undone as usize;
                let key = key.zip(fingerprint).map(|(key, fingerprint)| IdempotencyKey { key, fingerprint });
                Ok((seq.cast_unsigned(), entry, key))
            })
            .collect()
    }

    /// Writes changes until nobody has any more.
    pub(crate) async fn run(self, mut changes: mpsc::UnboundedReceiver<Change>, dies_at: Option<u64>) {
        let mut left = dies_at.unwrap_or(u64::MAX);
        let batch_max = if dies_at.is_some() { 1 } else { BATCH_MAX };
        let mut batch = Vec::with_capacity(batch_max);
        while changes.recv_many(&mut batch, batch_max).await > 0 {
            if left == 0 {
                // Nobody is answered any more; what waits is lost with the process.
                return std::future::pending().await;
            }
            left = left.saturating_sub(1);
            if let Err(error) = self.write(&batch).await {
                tracing::error!("nothing more is decided: {error}");
                // Before those who wait hear that they wait in vain: nobody is to be shown what was not kept.
                self.closing.fail(error.to_string());
                drop((batch, changes));
                // The lock is held until the process ends. Steps that were begun may be under way until then.
                return std::future::pending().await;
            }
            for (_, answer) in batch.drain(..) {
                // Who asked may be gone; what it asked for is done all the same.
                let _ = answer.send(());
            }
        }
    }

    async fn write(&self, batch: &[Change]) -> Result<(), ControllerError> {
        let batch = Batch::new(batch.iter().flat_map(|(rows, _)| rows));
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for (statement, rows) in batch.statements()? {
            sqlx::query(statement).bind(rows).execute(&mut *transaction).await?;
        }
        if let Some((seq, parts)) = batch.snapshot {
            write_snapshot(&mut transaction, seq, parts).await?;
        }
        Ok(transaction.commit().await?)
    }
}

/// Replaces the snapshot, and drops what is older than anybody asks for.
async fn write_snapshot(
    connection: &mut SqliteConnection,
    seq: u64,
    parts: &[Snapshot],
) -> Result<(), ControllerError> {
    sqlx::query("DELETE FROM snapshot").execute(&mut *connection).await?;
    // One after the other: the text of all would need the rack's size in memory again.
    for part in parts {
        let text = serde_json::to_string(part)?;
        sqlx::query("INSERT INTO snapshot (rack) VALUES (?)").bind(text).execute(&mut *connection).await?;
    }
    let seq = seq.cast_signed();
    sqlx::query("UPDATE state SET snapshot_seq = ?").bind(seq).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM events WHERE id <= (SELECT MAX(id) FROM events) - ?")
        .bind(EVENTS_MAX)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM history WHERE seq <= ? - ?")
        .bind(seq)
        .bind(HISTORY_MAX)
        .execute(connection)
        .await?;
    Ok(())
}
