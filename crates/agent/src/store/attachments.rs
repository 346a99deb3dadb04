//! Physical attachments: the brick's RMC table, and which VM has which entry.

use rackmem_api::agent::Attachment;
use rackmem_api::problem::ProblemType;
use rackmem_api::{AttachmentId, Problem, VmName};
use sqlx::{FromRow, SqliteConnection};

use super::{Store, StoreError, from_json, now_ms, to_json, to_sql};

/// An attachment and whose it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AttachmentRow {
    /// The entry.
    pub(crate) entry: Attachment,
    /// The VM that it belongs to.
    pub(crate) vm: Option<VmName>,
    /// When it was made.
    pub(crate) created_ms: u64,
}

#[derive(FromRow)]
struct Row {
    entry: String,
    vm: Option<String>,
    created_ms: i64,
}

impl Row {
    fn read(self) -> Result<AttachmentRow, StoreError> {
        let vm = self.vm.map(|name| from_json(&serde_json::json!(name).to_string())).transpose()?;
        Ok(AttachmentRow { entry: from_json(&self.entry)?, vm, created_ms: self.created_ms.cast_unsigned() })
    }
}

impl Store {
    /// All attachments, by address.
    pub(crate) async fn attachment_list(&self) -> Result<Vec<AttachmentRow>, StoreError> {
        let rows: Vec<Row> =
            sqlx::query_as("SELECT entry, vm, created_ms FROM attachments").fetch_all(&self.readers).await?;
        let mut rows = rows.into_iter().map(Row::read).collect::<Result<Vec<_>, _>>()?;
        rows.sort_by_key(|row| row.entry.start);
        Ok(rows)
    }

    /// One attachment; a problem if there is none of that name.
    pub(crate) async fn attachment(&self, id: &AttachmentId) -> Result<AttachmentRow, StoreError> {
        let row: Option<Row> = sqlx::query_as("SELECT entry, vm, created_ms FROM attachments WHERE id = ?")
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await?;
        row.ok_or_else(|| StoreError::from(Problem::not_found("attachment", id)))?.read()
    }
}

pub(super) async fn insert(connection: &mut SqliteConnection, entry: &Attachment) -> Result<(), StoreError> {
    let rows: Vec<String> =
        sqlx::query_scalar("SELECT entry FROM attachments").fetch_all(&mut *connection).await?;
    for row in &rows {
        let there: Attachment = from_json(row)?;
        if there == *entry {
            // Attaching twice is attaching once.
            return Ok(());
        }
        if there.id == entry.id {
            let detail =
                format!("there is an attachment '{}' already, with other numbers: remove it first", entry.id);
            return Err(Problem::new(ProblemType::Exists, detail).into());
        }
        if there.overlaps(entry) {
            let detail = format!(
                "attachment '{}' has addresses in common with '{}' ({:#x} to {:#x}): choose another range",
                entry.id, there.id, there.start, there.end
            );
            return Err(Problem::new(ProblemType::Exists, detail).into());
        }
    }
    sqlx::query("INSERT INTO attachments (id, entry, created_ms) VALUES (?, ?, ?)")
        .bind(entry.id.as_str())
        .bind(to_json(entry)?)
        .bind(to_sql(now_ms()))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn remove(connection: &mut SqliteConnection, id: &AttachmentId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM attachments WHERE id = ?").bind(id.as_str()).execute(connection).await?;
    Ok(())
}

pub(super) async fn give(
    connection: &mut SqliteConnection,
    id: &AttachmentId,
    vm: Option<&VmName>,
) -> Result<(), StoreError> {
    let row: Option<Row> = sqlx::query_as("SELECT entry, vm, created_ms FROM attachments WHERE id = ?")
        .bind(id.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let row = row.ok_or_else(|| StoreError::from(Problem::not_found("attachment", id)))?.read()?;
    if let Some(vm) = vm {
        if let Some(owner) = row.vm.filter(|owner| owner != vm) {
            let detail = format!("attachment '{id}' belongs to '{owner}': take it from there first");
            return Err(Problem::new(ProblemType::InUse, detail).into());
        }
        row.entry.check_own()?;
    }
    sqlx::query("UPDATE attachments SET vm = ? WHERE id = ?")
        .bind(vm.map(VmName::as_str))
        .bind(id.as_str())
        .execute(connection)
        .await?;
    Ok(())
}
