//! How a changing request becomes an operation: the key, the generation, the operation and what comes true with it at
//! once are one transaction, so that no older request slips in between and none is done twice.

use rackmem_api::agent::Attachment;
use rackmem_api::problem::ProblemType;
use rackmem_api::{
    AttachmentId, Change, Generation, Operation, OperationId, OperationState, Problem, VmName,
};
use serde::{Deserialize, Serialize};
use sqlx::{Sqlite, SqliteConnection, Transaction};

use super::operations::{Row, insert};
use super::{Store, StoreError, attachments, now_ms, to_sql, vms};
use crate::vm::VmRecord;

/// An operation to be accepted.
#[derive(Clone, Debug)]
pub(crate) struct NewOperation {
    /// Its identity.
    pub(crate) id: OperationId,
    /// Its kind, for example `vm.create`.
    pub(crate) kind: &'static str,
    /// What it changes.
    pub(crate) target: String,
    /// What is to be done, as JSON.
    pub(crate) work: String,
}

/// A row that changes together with an operation's beginning or end.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effect {
    /// A new VM. Refused if its name is taken.
    VmInsert(Box<VmRecord>),
    /// There is no such VM any more; its attachments belong to nobody.
    VmRemove(VmName),
    /// A new physical attachment. Refused if another one has its place or name.
    AttachmentInsert(Box<Attachment>),
    /// There is no such attachment any more.
    AttachmentRemove(AttachmentId),
    /// An attachment belongs to this VM, or to nobody. Refused if it belongs to another.
    AttachmentGive(AttachmentId, Option<VmName>),
}

impl Store {
    /// Accepts an operation, or answers the one that the same request started before. The flag says which: only a new
    /// one has to be carried out.
    pub(crate) async fn accept(
        &self,
        change: &Change,
        new: NewOperation,
        effects: &[Effect],
    ) -> Result<(Operation, bool), StoreError> {
        let mut transaction = self.begin().await?;
        if let Some(key) = &change.key
            && let Some((fingerprint, operation)) = Row::by_key(&mut transaction, &key.key).await?
        {
            key.same_request(fingerprint)?;
            return Ok((operation, false));
        }
        generation_admit(&mut transaction, change.generation).await?;
        refuse_busy(&mut transaction, &new.target).await?;
        let now = now_ms();
        let operation = Operation {
            id: new.id,
            kind: new.kind.to_owned(),
            target: new.target,
            state: OperationState::Running,
            step: None,
            progress: 0.0,
            error: None,
            note: None,
            generation: change.generation.0,
            by: change.by.clone(),
            created_ms: now,
            updated_ms: now,
        };
        insert(&mut transaction, &operation, &new.work, change.key.as_ref()).await?;
        apply(&mut transaction, effects).await?;
        transaction.commit().await?;
        Ok((operation, true))
    }

    /// Judges a change before anything else is: the operation that the same request began before, or else its generation,
    /// which is remembered even if what is asked for is refused afterwards.
    pub(crate) async fn admit(&self, change: &Change) -> Result<Option<Operation>, StoreError> {
        let mut transaction = self.begin().await?;
        if let Some(key) = &change.key
            && let Some((fingerprint, operation)) = Row::by_key(&mut transaction, &key.key).await?
        {
            key.same_request(fingerprint)?;
            return Ok(Some(operation));
        }
        generation_admit(&mut transaction, change.generation).await?;
        transaction.commit().await?;
        Ok(None)
    }
}

async fn generation_admit(connection: &mut SqliteConnection, asked: Generation) -> Result<(), StoreError> {
    let highest: i64 =
        sqlx::query_scalar("SELECT highest FROM generation").fetch_one(&mut *connection).await?;
    let admitted = Generation(highest.cast_unsigned()).admit(asked)?;
    sqlx::query("UPDATE generation SET highest = ?").bind(to_sql(admitted.0)).execute(connection).await?;
    Ok(())
}

async fn refuse_busy(connection: &mut SqliteConnection, target: &str) -> Result<(), StoreError> {
    let running: Option<(String, String)> =
        sqlx::query_as("SELECT kind, id FROM operations WHERE target = ? AND state = 'running'")
            .bind(target)
            .fetch_optional(connection)
            .await?;
    running.map_or(Ok(()), |(kind, id)| {
        let detail =
            format!("'{target}' is being changed by operation {id} ({kind}): wait for it, or cancel it");
        Err(Problem::new(ProblemType::Busy, detail).retry_after(1).into())
    })
}

/// Makes `effects` come true.
pub(super) async fn apply(
    transaction: &mut Transaction<'static, Sqlite>,
    effects: &[Effect],
) -> Result<(), StoreError> {
    for effect in effects {
        match effect {
            Effect::VmInsert(vm) => vms::insert(transaction, vm).await?,
            Effect::VmRemove(name) => vms::remove(transaction, name).await?,
            Effect::AttachmentInsert(entry) => attachments::insert(transaction, entry).await?,
            Effect::AttachmentRemove(id) => attachments::remove(transaction, id).await?,
            Effect::AttachmentGive(id, vm) => attachments::give(transaction, id, vm.as_ref()).await?,
        }
    }
    Ok(())
}
