//! What happened, for those who listen later than it happened.

use rackmem_api::{Event, EventId, Operation};
use sqlx::{FromRow, SqliteConnection};

use super::{Store, StoreError, from_json, now_ms, to_json, to_sql};

/// Events that are kept: a listener that was away for longer reads everything again.
const EVENTS_MAX: i64 = 20_000;

/// Events of the past in one answer.
const BATCH: i64 = 1000;

#[derive(FromRow)]
struct Row {
    id: i64,
    at_ms: i64,
    kind: String,
    target: String,
    detail: String,
    operation: Option<String>,
}

impl Store {
    /// Notes that something happened.
    pub(crate) async fn event_add(
        &self,
        kind: &str,
        target: &str,
        detail: &str,
    ) -> Result<Event, StoreError> {
        let mut transaction = self.begin().await?;
        let event = add(&mut transaction, kind, target, detail, None).await?;
        transaction.commit().await?;
        Ok(event)
    }

    /// The events behind `after`, oldest first, some at a time.
    pub(crate) async fn events_after(&self, after: EventId) -> Result<Vec<Event>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, at_ms, kind, target, detail, operation FROM events WHERE id > ? ORDER BY id LIMIT ?",
        )
        .bind(to_sql(after))
        .bind(BATCH)
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(Row::read).collect()
    }

    /// The oldest and the newest event that are kept; zeros if there is none.
    pub(crate) async fn event_range(&self) -> Result<(EventId, EventId), StoreError> {
        let (oldest, newest): (i64, i64) =
            sqlx::query_as("SELECT COALESCE(MIN(id), 0), COALESCE(MAX(id), 0) FROM events")
                .fetch_one(&self.readers)
                .await?;
        Ok((oldest.cast_unsigned(), newest.cast_unsigned()))
    }

    /// Forgets the oldest events beyond what is kept.
    pub(crate) async fn events_trim(&self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM events WHERE id <= (SELECT MAX(id) FROM events) - ?")
            .bind(EVENTS_MAX)
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}

impl Row {
    fn read(self) -> Result<Event, StoreError> {
        Ok(Event {
            id: self.id.cast_unsigned(),
            at_ms: self.at_ms.cast_unsigned(),
            kind: self.kind,
            target: self.target,
            detail: self.detail,
            operation: self.operation.as_deref().map(from_json).transpose()?,
        })
    }
}

pub(super) async fn add(
    connection: &mut SqliteConnection,
    kind: &str,
    target: &str,
    detail: &str,
    operation: Option<&Operation>,
) -> Result<Event, StoreError> {
    let at_ms = now_ms();
    let added =
        sqlx::query("INSERT INTO events (at_ms, kind, target, detail, operation) VALUES (?, ?, ?, ?, ?)")
            .bind(to_sql(at_ms))
            .bind(kind)
            .bind(target)
            .bind(detail)
            .bind(operation.map(to_json).transpose()?)
            .execute(connection)
            .await?;
    Ok(Event {
        id: added.last_insert_rowid().cast_unsigned(),
        at_ms,
        kind: kind.to_owned(),
        target: target.to_owned(),
        detail: detail.to_owned(),
        operation: operation.cloned(),
    })
}
