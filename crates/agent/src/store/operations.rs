//! Operations and their journals.

use rackmem_api::operation::OperationFilter;
use rackmem_api::{Event, IdempotencyKey, Operation, OperationId, OperationState, Problem, idempotency};
use sqlx::{FromRow, SqliteConnection};

use super::accept::apply;
use super::{Effect, Store, StoreError, events, from_json, now_ms, to_json, to_sql};
use crate::operation::Record;

/// Ended operations are kept for so long: as their keys have to be.
const KEPT_MS: u64 = idempotency::KEPT.as_millis() as u64;

/// An operation that has not ended, with what is needed to carry it on.
#[derive(Clone, Debug)]
pub(crate) struct OpenOperation {
    /// As it is seen from outside.
    pub(crate) operation: Operation,
    /// What is to be done, as JSON.
    pub(crate) work: String,
    /// What has happened.
    pub(crate) records: Vec<Record>,
}

/// How far an operation is, for those who look.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// The step, as a phrase.
    pub(crate) step: String,
    /// From 0 to 1.
    pub(crate) progress: f64,
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// Any but running.
    pub(crate) state: OperationState,
    /// Why it failed.
    pub(crate) error: Option<Problem>,
    /// What is to be known of a success.
    pub(crate) note: Option<String>,
    /// What comes true with it.
    pub(crate) effects: Vec<Effect>,
}

impl Store {
    /// Operations, newest first.
    pub(crate) async fn operation_list(
        &self,
        filter: &OperationFilter,
    ) -> Result<Vec<Operation>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT * FROM operations WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR target = ?2)
             ORDER BY created_ms DESC, id DESC LIMIT ?3",
        )
        .bind(filter.state.map(word))
        .bind(filter.target.as_deref())
        .bind(to_sql(filter.limit() as u64))
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(Row::read).collect()
    }

    /// One operation; a problem if there is none.
    pub(crate) async fn operation(&self, id: OperationId) -> Result<Operation, StoreError> {
        let row: Option<Row> = sqlx::query_as("SELECT * FROM operations WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.ok_or_else(|| StoreError::from(Problem::not_found("operation", id)))?.read()
    }

    /// The operation that changes `target` now.
    pub(crate) async fn operation_running(&self, target: &str) -> Result<Option<Operation>, StoreError> {
        let row: Option<Row> =
            sqlx::query_as("SELECT * FROM operations WHERE target = ? AND state = 'running'")
                .bind(target)
                .fetch_optional(&self.readers)
                .await?;
        row.map(Row::read).transpose()
    }

    /// All operations that have not ended: what an agent finds when it starts.
    pub(crate) async fn operations_open(&self) -> Result<Vec<OpenOperation>, StoreError> {
        let rows: Vec<Row> =
            sqlx::query_as("SELECT * FROM operations WHERE state = 'running' ORDER BY created_ms")
                .fetch_all(&self.readers)
                .await?;
        let mut open = Vec::new();
        for row in rows {
            let records: Vec<String> =
                sqlx::query_scalar("SELECT record FROM records WHERE operation = ? ORDER BY sequence")
                    .bind(&row.id)
                    .fetch_all(&self.readers)
                    .await?;
            let records = records.iter().map(|record| from_json(record)).collect::<Result<_, _>>()?;
            open.push(OpenOperation { work: row.work.clone(), operation: row.read()?, records });
        }
        Ok(open)
    }

    /// Writes a record of an operation's journal, and how far the operation is.
    pub(crate) async fn operation_record(
        &self,
        id: OperationId,
        record: &Record,
        progress: &Progress,
    ) -> Result<Event, StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("INSERT INTO records (operation, record) VALUES (?, ?)")
            .bind(id.to_string())
            .bind(to_json(record)?)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("UPDATE operations SET step = ?, progress = ?, updated_ms = ? WHERE id = ?")
            .bind(&progress.step)
            .bind(progress.progress)
            .bind(to_sql(now_ms()))
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        let operation = Row::by_id(&mut transaction, id).await?.read()?;
        let detail = match record {
            Record::Begun { .. } => format!("{}: begins", progress.step),
            Record::Done { note, .. } => match note {
                Some(note) => format!("{}: {note}", progress.step),
                None => format!("{}: done", progress.step),
            },
            Record::Failed { error, .. } => error.detail.clone(),
            Record::CancelAsked => "it is being cancelled".to_owned(),
            Record::Undone { .. } => format!("{}: undone", progress.step),
        };
        let target = &operation.target;
        let event =
            events::add(&mut transaction, "operation.step", target, &detail, Some(&operation)).await?;
        transaction.commit().await?;
        Ok(event)
    }

    /// Writes an operation's end and makes what comes with it true.
    pub(crate) async fn operation_end(&self, id: OperationId, ending: &Ending) -> Result<Event, StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "UPDATE operations SET state = ?1, error = ?2, note = ?3, updated_ms = ?4,
             progress = CASE ?1 WHEN 'done' THEN 1.0 ELSE progress END WHERE id = ?5",
        )
        .bind(word(ending.state))
        .bind(ending.error.as_ref().map(to_json).transpose()?)
        .bind(&ending.note)
        .bind(to_sql(now_ms()))
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await?;
        apply(&mut transaction, &ending.effects).await?;
        let operation = Row::by_id(&mut transaction, id).await?.read()?;
        let detail = match (&ending.error, &ending.note) {
            (Some(problem), _) => problem.detail.clone(),
            (None, Some(note)) => note.clone(),
            (None, None) => format!("{} of '{}' has ended", operation.kind, operation.target),
        };
        let kind = format!("operation.{}", word(ending.state));
        let target = &operation.target;
        let event = events::add(&mut transaction, &kind, target, &detail, Some(&operation)).await?;
        transaction.commit().await?;
        Ok(event)
    }

    /// Forgets operations that ended long ago.
    pub(crate) async fn operations_trim(&self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM operations WHERE state <> 'running' AND updated_ms < ?")
            .bind(to_sql(now_ms().saturating_sub(KEPT_MS)))
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}

#[derive(FromRow)]
pub(super) struct Row {
    id: String,
    kind: String,
    target: String,
    work: String,
    state: String,
    step: Option<String>,
    progress: f64,
    error: Option<String>,
    note: Option<String>,
    generation: i64,
    by: String,
    fingerprint: Option<i64>,
    created_ms: i64,
    updated_ms: i64,
}

impl Row {
    async fn by_id(connection: &mut SqliteConnection, id: OperationId) -> Result<Self, StoreError> {
        let row = sqlx::query_as("SELECT * FROM operations WHERE id = ?");
        Ok(row.bind(id.to_string()).fetch_one(connection).await?)
    }

    pub(super) async fn by_key(
        connection: &mut SqliteConnection,
        key: &str,
    ) -> Result<Option<(i64, Operation)>, StoreError> {
        let row: Option<Self> = sqlx::query_as("SELECT * FROM operations WHERE idempotency_key = ?")
            .bind(key)
            .fetch_optional(connection)
            .await?;
        row.map(|row| Ok((row.fingerprint.unwrap_or_default(), row.read()?))).transpose()
    }

    fn read(self) -> Result<Operation, StoreError> {
        let quoted = |text: &str| serde_json::json!(text).to_string();
        Ok(Operation {
            id: from_json(&quoted(&self.id))?,
            kind: self.kind,
            target: self.target,
            state: from_json(&quoted(&self.state))?,
            step: self.step,
            progress: self.progress,
            error: self.error.as_deref().map(from_json).transpose()?,
            note: self.note,
            generation: self.generation.cast_unsigned(),
            by: self.by,
            created_ms: self.created_ms.cast_unsigned(),
            updated_ms: self.updated_ms.cast_unsigned(),
        })
    }
}

pub(super) async fn insert(
    connection: &mut SqliteConnection,
    operation: &Operation,
    work: &str,
    key: Option<&IdempotencyKey>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO operations (id, kind, target, work, state, progress, generation, by, idempotency_key,
         fingerprint, created_ms, updated_ms) VALUES (?, ?, ?, ?, 'running', 0, ?, ?, ?, ?, ?, ?)",
    )
    .bind(operation.id.to_string())
    .bind(&operation.kind)
    .bind(&operation.target)
    .bind(work)
    .bind(to_sql(operation.generation))
    .bind(&operation.by)
    .bind(key.map(|key| &key.key))
    .bind(key.map(|key| key.fingerprint))
    .bind(to_sql(operation.created_ms))
    .bind(to_sql(operation.updated_ms))
    .execute(connection)
    .await?;
    Ok(())
}

fn word(state: OperationState) -> &'static str {
    match state {
        OperationState::Running => "running",
        OperationState::Done => "done",
        OperationState::Failed => "failed",
        OperationState::Cancelled => "cancelled",
    }
}
