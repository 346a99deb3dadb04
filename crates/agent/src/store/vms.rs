//! VMs, as far as the machine cannot tell.

use rackmem_api::problem::ProblemType;
use rackmem_api::{Problem, VmName};
use sqlx::SqliteConnection;

use super::{Store, StoreError, from_json, to_json};
use crate::vm::VmRecord;

impl Store {
    /// All VMs, by name.
    pub(crate) async fn vm_list(&self) -> Result<Vec<VmRecord>, StoreError> {
        let rows: Vec<String> =
            sqlx::query_scalar("SELECT record FROM vms ORDER BY name").fetch_all(&self.readers).await?;
        rows.iter().map(|row| from_json(row)).collect()
    }

    /// One VM; a problem if there is none of that name.
    pub(crate) async fn vm(&self, name: &VmName) -> Result<VmRecord, StoreError> {
        let row: Option<String> = sqlx::query_scalar("SELECT record FROM vms WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(&self.readers)
            .await?;
        row.map_or_else(|| Err(Problem::not_found("virtual machine", name).into()), |row| from_json(&row))
    }

    /// Changes a VM's record, as it is at this moment. Nothing happens if it is gone.
    pub(crate) async fn vm_change(
        &self,
        name: &VmName,
        change: impl FnOnce(&mut VmRecord) + Send,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let row: Option<String> = sqlx::query_scalar("SELECT record FROM vms WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(&mut *transaction)
            .await?;
        if let Some(row) = row {
            let mut record = from_json(&row)?;
            change(&mut record);
            update(&mut transaction, &record).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Forgets a VM that has ended by itself.
    pub(crate) async fn vm_remove(&self, name: &VmName) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        remove(&mut transaction, name).await?;
        Ok(transaction.commit().await?)
    }
}

pub(super) async fn insert(connection: &mut SqliteConnection, vm: &VmRecord) -> Result<(), StoreError> {
    let name = vm.name();
    let inserted = sqlx::query("INSERT INTO vms (name, record) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(name.as_str())
        .bind(to_json(vm)?)
        .execute(connection)
        .await?;
    if inserted.rows_affected() > 0 {
        return Ok(());
    }
    let detail =
        format!("there is a virtual machine '{name}' already: choose another name, or delete that one first");
    Err(Problem::new(ProblemType::Exists, detail).into())
}

pub(super) async fn update(connection: &mut SqliteConnection, vm: &VmRecord) -> Result<(), StoreError> {
    sqlx::query("UPDATE vms SET record = ? WHERE name = ?")
        .bind(to_json(vm)?)
        .bind(vm.name().as_str())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn remove(connection: &mut SqliteConnection, name: &VmName) -> Result<(), StoreError> {
    sqlx::query("UPDATE attachments SET vm = NULL WHERE vm = ?")
        .bind(name.as_str())
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM vms WHERE name = ?").bind(name.as_str()).execute(connection).await?;
    Ok(())
}
