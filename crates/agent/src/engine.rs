//! Carries operations out: one task for each, which does step after step and writes each down before the next.
//!
//! Lock order: there is one lock, over the running operations, and nothing is awaited under it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rackmem_api::problem::ProblemType;
use rackmem_api::{Change, Operation, OperationId, OperationState, Problem};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ground::Ground;
use crate::mortality::Mortality;
use crate::operation::{End, Journal, Next, Record};
use crate::problem::from_store;
use crate::step::Work;
use crate::store::{Effect, Ending, NewOperation, OpenOperation, Progress, StoreError};

/// A step that cannot be taken back is tried again so often; then what is left is told and the operation ends.
const UNDO_TRIES: u32 = 5;

/// Between two such tries.
const UNDO_EVERY: Duration = Duration::from_secs(1);

/// A record that the disk has no room for is written again so often: one failing statement for each operation that waits.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// All running operations.
#[derive(Debug)]
pub(crate) struct Engine {
    ground: Arc<Ground>,
    mortality: Mortality,
    running: Mutex<HashMap<OperationId, CancellationToken>>,
}

impl Engine {
    /// An engine with nothing to do yet.
    pub(crate) fn new(ground: Arc<Ground>, mortality: Mortality) -> Arc<Self> {
        Arc::new(Self { ground, mortality, running: Mutex::default() })
    }

    /// Accepts an operation and begins it, or answers the one that the same request began before.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        change: &Change,
        kind: &'static str,
        target: &str,
        work: Work,
        effects: &[Effect],
    ) -> Result<Operation, Problem> {
        let internal = |error: serde_json::Error| Problem::new(ProblemType::Internal, error.to_string());
        let new = NewOperation {
            id: OperationId(Uuid::now_v7()),
            kind,
            target: target.to_owned(),
            work: serde_json::to_string(&work).map_err(internal)?,
        };
        let (operation, is_new) = self.ground.store.accept(change, new, effects).await.map_err(from_store)?;
        if is_new {
            tracing::info!(id = %operation.id, kind, target, by = change.by, "an operation begins");
            let journal = Journal::new(work.steps.len(), work.on_failure);
            self.spawn(operation.clone(), work, journal);
        }
        Ok(operation)
    }

    /// Goes on with an operation that another agent has left.
    pub(crate) fn carry_on(self: &Arc<Self>, open: OpenOperation) -> Result<(), StoreError> {
        let work: Work = serde_json::from_str(&open.work)?;
        let journal = Journal::replay(work.steps.len(), work.on_failure, &open.records);
        let Operation { id, kind, target, .. } = &open.operation;
        tracing::info!(%id, kind, target, undoing = journal.is_undoing(), "an operation goes on");
        self.spawn(open.operation, work, journal);
        Ok(())
    }

    /// Asks an operation to stop and to undo what it did. Whether it was running.
    pub(crate) fn cancel(&self, id: OperationId) -> bool {
        let token = self.running().get(&id).cloned();
        token.inspect(CancellationToken::cancel).is_some()
    }

    /// How many operations are running.
    pub(crate) fn count(&self) -> usize {
        self.running().len()
    }

    fn spawn(self: &Arc<Self>, operation: Operation, work: Work, journal: Journal) {
        let token = CancellationToken::new();
        self.running().insert(operation.id, token.clone());
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            let id = operation.id;
            let mut course = Course { engine: &engine, operation, work, journal, token, stands: false };
            if let Err(error) = course.run().await {
                // It stays open in the store, so the next agent goes on with it.
                tracing::error!(%id, %error, "an operation stands still: its journal cannot be written");
            }
            engine.running().remove(&id);
        });
    }

    fn running(&self) -> MutexGuard<'_, HashMap<OperationId, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One operation on its way.
struct Course<'a> {
    engine: &'a Engine,
    operation: Operation,
    work: Work,
    journal: Journal,
    token: CancellationToken,
    /// Whether its last record could not be written yet.
    stands: bool,
}

impl Course<'_> {
    async fn run(&mut self) -> Result<(), StoreError> {
        loop {
            if self.token.is_cancelled() && !self.journal.is_cancelled() {
                self.record(Record::CancelAsked, "cancel").await?;
            }
            match self.journal.next() {
                Next::Do(step) => self.take(step).await?,
                Next::Undo(step) => self.undo(step).await?,
                Next::End(end) => return self.end(end).await,
            }
        }
    }

    async fn take(&mut self, index: usize) -> Result<(), StoreError> {
        let step = self.work.steps[index].clone();
        let phrase = step.to_string();
        self.record(Record::Begun { step: index }, &phrase).await?;
        let taken = step.take(&self.engine.ground, self.work.vm.as_ref(), &self.token);
        let taken = if step.is_interruptible() {
            tokio::select! {
                taken = taken => taken,
                () = self.token.cancelled() => return Ok(()),
            }
        } else {
            taken.await
        };
        let record = match taken {
            Ok(note) => Record::Done { step: index, note },
            Err(error) if error.kind == ProblemType::Cancelled && self.token.is_cancelled() => return Ok(()),
            Err(error) => {
                tracing::warn!(id = %self.operation.id, step = phrase, %error, "a step failed");
                Record::Failed { step: index, error }
            }
        };
        self.record(record, &phrase).await
    }

    async fn undo(&mut self, index: usize) -> Result<(), StoreError> {
        let step = self.work.steps[index].clone();
        for tried in 1..=UNDO_TRIES {
            match step.undo(&self.engine.ground, self.work.vm.as_ref()).await {
                Ok(()) => break,
                Err(error) if tried == UNDO_TRIES => {
                    tracing::error!(id = %self.operation.id, %step, %error, "a step cannot be undone");
                    let detail = format!("'{step}' could not be undone: {error}");
                    self.engine.ground.event("operation.rest", &self.operation.target, &detail).await;
                }
                Err(_) => sleep(UNDO_EVERY).await,
            }
        }
        self.record(Record::Undone { step: index }, &step.to_string()).await
    }

    async fn record(&mut self, record: Record, phrase: &str) -> Result<(), StoreError> {
        self.engine.mortality.moment();
        self.journal.apply(&record);
        let progress = Progress { step: phrase.to_owned(), progress: self.journal.progress() };
        let event = loop {
            let store = &self.engine.ground.store;
            match store.operation_record(self.operation.id, &record, &progress).await {
                Err(error) if error.may_pass() => self.stand(&error).await,
                written => break written?,
            }
        };
        self.go_on();
        self.engine.ground.tell(&event);
        self.engine.mortality.moment();
        Ok(())
    }

    async fn end(&mut self, end: End) -> Result<(), StoreError> {
        let id = self.operation.id;
        let (state, error, effects) = match end {
            End::Done => (OperationState::Done, None, &self.work.when_done),
            End::Failed(error) => (OperationState::Failed, Some(error), &self.work.when_undone),
            End::Cancelled => {
                let problem =
                    Problem::new(ProblemType::Cancelled, "it was cancelled, and what was done is undone");
                (OperationState::Cancelled, Some(problem), &self.work.when_undone)
            }
        };
        let ending = Ending { state, error, note: self.journal.note(), effects: effects.clone() };
        let event = loop {
            match self.engine.ground.store.operation_end(id, &ending).await {
                Err(error) if error.may_pass() => self.stand(&error).await,
                written => break written?,
            }
        };
        self.go_on();
        tracing::info!(%id, kind = self.operation.kind, target = self.operation.target, ?state, "an operation has ended");
        self.engine.running().remove(&id);
        self.engine.ground.tell(&event);
        self.engine.mortality.moment();
        Ok(())
    }

    /// Waits before a record is written again. Nothing is done meanwhile, so that no step is done or undone that is not in the journal.
    async fn stand(&mut self, error: &StoreError) {
        if !std::mem::replace(&mut self.stands, true) {
            tracing::error!(id = %self.operation.id, %error, "an operation stands still until its journal can be written");
        }
        sleep(WRITE_EVERY).await;
    }

    fn go_on(&mut self) {
        if std::mem::take(&mut self.stands) {
            tracing::info!(id = %self.operation.id, "an operation goes on: its journal can be written again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::AgentConfig;
    use crate::machines::Machines;
    use crate::operation::OnFailure;
    use crate::store::Store;

    async fn engine(state: &Path) -> Arc<Engine> {
        let config = AgentConfig {
            state: state.to_owned(),
            runtime: state.to_owned(),
            program: "rackmem".into(),
            qemu: "qemu".into(),
            libvirt: crate::LIBVIRT.to_owned(),
            accelerator: None,
            memory_servers: Vec::new(),
            far_options: Vec::new(),
            pool: None,
            lender: None,
        };
        let store = Store::open(state).await.unwrap();
        let hypervisor = crate::hypervisor::Hypervisor::new(config.qemu.clone(), None, state);
        let machines = Machines::new(hypervisor, state.to_owned(), config.libvirt.clone());
        let ground = Ground::new(config, store, machines).await.unwrap();
        Engine::new(ground, Mortality::at(None))
    }

    #[tokio::test]
    async fn an_operation_stands_still_while_nothing_can_be_written_and_then_goes_on() {
        let place = tempfile::tempdir().unwrap();
        let engine = engine(place.path()).await;
        let store = &engine.ground.store;
        let work = Work {
            vm: None,
            steps: Vec::new(),
            on_failure: OnFailure::Keep,
            when_done: Vec::new(),
            when_undone: Vec::new(),
        };
        let change = Change::new(rackmem_api::Generation(0), "local");
        let new = NewOperation {
            id: OperationId(Uuid::now_v7()),
            kind: "attachment.delete",
            target: "m1".to_owned(),
            work: serde_json::to_string(&work).unwrap(),
        };
        let (operation, _) = store.accept(&change, new, &[]).await.unwrap();
        store.fill(true).await;
        let refused = engine.begin(&change, "attachment.delete", "m2", work, &[]).await.unwrap_err();
        assert_eq!((refused.kind, refused.retry_after_s), (ProblemType::Unavailable, Some(5)), "{refused}");
        for open in store.operations_open().await.unwrap() {
            engine.carry_on(open).unwrap();
        }
        sleep(WRITE_EVERY / 2).await;
        assert_eq!(store.operation(operation.id).await.unwrap().state, OperationState::Running);
        assert_eq!(engine.count(), 1);
        store.fill(false).await;
        while engine.count() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(store.operation(operation.id).await.unwrap().state, OperationState::Done);
    }
}
