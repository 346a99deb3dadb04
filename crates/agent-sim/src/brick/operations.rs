//! The journal of operations: begun, done step by step, failed, cancelled, and kept for a while.

use std::collections::VecDeque;

use rackmem_api::change::Change;
use rackmem_api::operation::OperationFilter;
use rackmem_api::problem::ProblemType;
use rackmem_api::{
    AttachmentId, Event, IdempotencyKey, Operation, OperationId, OperationState, Problem, VmName,
};

use super::command::Command;
use super::effect::Step;
use super::{Brick, SimVm};

/// Operations that are kept after their end, with their keys.
const KEPT: usize = 256;

/// All operations that are known, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Operations(VecDeque<Row>);

#[derive(Clone, Debug)]
struct Row {
    operation: Operation,
    key: Option<IdempotencyKey>,
    /// What is still to do; none when it has ended.
    work: Option<Work>,
}

/// The rest of an operation.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) command: Command,
    /// The machine before it was begun.
    pub(super) before: Option<SimVm>,
    steps: Vec<Step>,
    at: usize,
    due: u64,
    fails_at: Option<usize>,
}

impl Operations {
    pub(crate) fn find(&self, id: OperationId) -> Result<&Operation, Problem> {
        let row = self.0.iter().find(|row| row.operation.id == id);
        row.map(|row| &row.operation).ok_or_else(|| Problem::not_found("operation", id))
    }

    pub(crate) fn list(&self, filter: &OperationFilter) -> Vec<Operation> {
        let newest_first = self.0.iter().rev().map(|row| &row.operation);
        newest_first.filter(|operation| filter.matches(operation)).take(filter.limit()).cloned().collect()
    }

    pub(crate) fn running(&self) -> usize {
        self.0.iter().filter(|row| row.work.is_some()).count()
    }

    pub(crate) fn changing_vm(&self, name: &VmName) -> Option<&Operation> {
        self.changing(|command| command.vm() == Some(name))
    }

    pub(crate) fn changing_attachment(&self, id: &AttachmentId) -> Option<&Operation> {
        self.changing(|command| command.changes(id))
    }

    fn changing(&self, which: impl Fn(&Command) -> bool) -> Option<&Operation> {
        let row = self.0.iter().find(|row| row.work.as_ref().is_some_and(|work| which(&work.command)));
        row.map(|row| &row.operation)
    }

    /// When the next step is due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.0.iter().filter_map(|row| row.work.as_ref()).map(|work| work.due).min()
    }

    fn replayed(&self, key: &IdempotencyKey) -> Option<(&Operation, i64)> {
        let same = |row: &&Row| row.key.as_ref().is_some_and(|kept| kept.key == key.key);
        self.0
            .iter()
            .find(same)
            .map(|row| (&row.operation, row.key.as_ref().map_or(0, |kept| kept.fingerprint)))
    }

    fn forget_old(&mut self) {
        while self.0.len() > KEPT && self.0.front().is_some_and(|row| row.work.is_none()) {
            self.0.pop_front();
        }
    }
}

impl Brick {
    /// Judges a change and begins it.
    pub(crate) fn accept(
        &mut self,
        now: u64,
        change: Change,
        command: Command,
    ) -> Result<Operation, Problem> {
        if let Some((operation, fingerprint)) =
            change.key.as_ref().and_then(|key| self.operations.replayed(key))
        {
            change.key.as_ref().map_or(Ok(()), |key| key.same_request(fingerprint))?;
            return Ok(operation.clone());
        }
        self.generation = self.generation.admit(change.generation)?;
        let command = self.check(command)?;
        let id = self.begin(now, change.key, &change.by, command);
        self.settle(now);
        self.operations.find(id).cloned()
    }

    /// Begins a command that was checked.
    pub(super) fn begin(
        &mut self,
        now: u64,
        key: Option<IdempotencyKey>,
        by: &str,
        command: Command,
    ) -> OperationId {
        if let Command::Delete(name) = &command {
            self.give_way(now, &name.clone());
        }
        let steps = self.steps(&command);
        let permille = self.config.failures.step_permille;
        let fails_at = (0..steps.len()).find(|_| self.random.happens(permille));
        let operation = Operation {
            id: self.operation_id(now),
            kind: command.kind().to_owned(),
            target: command.target(),
            state: OperationState::Running,
            step: steps.first().map(|step| step.phrase.to_owned()),
            progress: 0.0,
            error: None,
            note: None,
            generation: self.generation.0,
            by: by.to_owned(),
            created_ms: now,
            updated_ms: now,
        };
        let id = operation.id;
        let before = command.vm().and_then(|name| self.vms.get(name)).cloned();
        self.apply_at_begin(&command, now);
        let due = now + steps.first().map_or(0, |step| step.ms);
        let work = Work { command, before, steps, at: 0, due, fails_at };
        self.tell(&operation);
        self.operations.0.push_back(Row { operation, key, work: Some(work) });
        self.operations.forget_old();
        id
    }

    /// Does all steps whose time has come, in the order of their times.
    pub(crate) fn settle(&mut self, now: u64) {
        loop {
            let due = |row: &Row| row.work.as_ref().map(|work| work.due).filter(|due| *due <= now);
            let rows = self.operations.0.iter().enumerate();
            let next = rows.filter_map(|(index, row)| Some((due(row)?, index))).min();
            match next {
                Some((at, index)) => self.step(index, at),
                None if self.follow_needs(now) => {}
                None => break,
            }
        }
    }

    fn step(&mut self, index: usize, now: u64) {
        let row = &mut self.operations.0[index];
        let Some(mut work) = row.work.take() else { return };
        row.operation.updated_ms = now;
        if work.fails_at == Some(work.at) {
            let phrase = work.steps.get(work.at).map_or("", |step| step.phrase);
            let detail = format!("the simulated step '{phrase}' failed, as it is configured to now and then");
            return self.end(
                index,
                work,
                OperationState::Failed,
                Some(Problem::new(ProblemType::Backend, detail)),
            );
        }
        work.at += 1;
        let Some(step) = work.steps.get(work.at) else {
            return self.end(index, work, OperationState::Done, None);
        };
        row.operation.step = Some(step.phrase.to_owned());
        row.operation.progress = work.at as f64 / work.steps.len() as f64;
        work.due = now + step.ms;
        row.work = Some(work);
        let operation = row.operation.clone();
        self.tell(&operation);
    }

    /// Ends an operation whose work was taken out of its row.
    fn end(&mut self, index: usize, work: Work, state: OperationState, error: Option<Problem>) {
        let now = self.operations.0[index].operation.updated_ms;
        let note = if state == OperationState::Done {
            self.apply_at_end(&work.command, now)
        } else {
            self.undo(work);
            None
        };
        let operation = &mut self.operations.0[index].operation;
        operation.state = state;
        operation.error = error;
        operation.note = note;
        if state == OperationState::Done {
            operation.progress = 1.0;
        }
        let operation = operation.clone();
        self.tell(&operation);
    }

    /// Cancels a running operation.
    pub(crate) fn cancel(
        &mut self,
        now: u64,
        change: &Change,
        id: OperationId,
    ) -> Result<Operation, Problem> {
        self.generation = self.generation.admit(change.generation)?;
        self.settle(now);
        self.operations.find(id)?;
        let index = self.operations.0.iter().position(|row| row.operation.id == id).unwrap_or_default();
        let row = &mut self.operations.0[index];
        let Some(work) = row.work.take() else { return Ok(row.operation.clone()) };
        if matches!(work.command, Command::Delete(_)) {
            row.work = Some(work);
            let detail = "a delete cannot be cancelled: what it has begun to give back is gone";
            return Err(Problem::new(ProblemType::WrongState, detail));
        }
        row.operation.updated_ms = now;
        let error = Problem::new(ProblemType::Cancelled, format!("cancelled by {}", change.by));
        self.end(index, work, OperationState::Cancelled, Some(error));
        Ok(self.operations.0[index].operation.clone())
    }

    /// Ends what is changing a machine that is to be deleted.
    fn give_way(&mut self, now: u64, name: &VmName) {
        let changes = |row: &Row| row.work.as_ref().is_some_and(|work| work.command.vm() == Some(name));
        while let Some(index) = self.operations.0.iter().position(changes) {
            let present = self.vms.get(name).cloned();
            let row = &mut self.operations.0[index];
            row.operation.updated_ms = now;
            let Some(work) = row.work.take() else { return };
            let error = Problem::new(ProblemType::Cancelled, format!("'{name}' is being deleted"));
            self.end(index, work, OperationState::Cancelled, Some(error));
            if let Some(present) = present {
                // An interrupted create takes the machine away, which is still to be deleted.
                self.vms.entry(name.clone()).or_insert(present);
            }
        }
    }

    /// After a restart of the agent: what was due while it was away is due now.
    pub(crate) fn resume(&mut self, now: u64) {
        for work in self.operations.0.iter_mut().filter_map(|row| row.work.as_mut()) {
            work.due = work.due.max(now);
        }
    }

    fn tell(&mut self, operation: &Operation) {
        let state = format!("{:?}", operation.state).to_lowercase();
        let Operation { kind, target, step, error, updated_ms, .. } = operation;
        let how = match (error, step) {
            (Some(error), _) => error.detail.clone(),
            (None, Some(step)) if operation.state == OperationState::Running => step.clone(),
            _ => operation.note.clone().unwrap_or_default(),
        };
        let separator = if how.is_empty() { "" } else { ": " };
        self.happened.push(Event {
            id: 0,
            at_ms: *updated_ms,
            kind: format!("operation.{state}"),
            target: target.clone(),
            detail: format!("{kind} of '{target}' is {state}{separator}{how}"),
            operation: Some(operation.clone()),
        });
    }

    fn operation_id(&mut self, now: u64) -> OperationId {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.random.next().to_le_bytes());
        bytes[8..].copy_from_slice(&self.random.next().to_le_bytes()[..2]);
        OperationId(uuid::Builder::from_unix_timestamp_millis(now, &bytes).into_uuid())
    }
}
