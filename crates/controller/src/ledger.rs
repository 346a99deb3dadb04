//! The ledger: the rack and all operations, in memory, and the order in which they change.
//!
//! One lock guards everything; it is held for a decision (microseconds to milliseconds), never while anything is waited for.
//! What a decision changed is queued for the store inside the lock, so that the store sees changes in their order; whoever
//! decided then waits for [`Kept`] outside of it. Readers may see what is not on the disk yet; nobody acts on it before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rackmem_api::events::EventLog;
use rackmem_api::problem::ProblemType;
use rackmem_api::{
    Change, Event, Generation, IdempotencyKey, Operation, OperationId, OperationState, Problem,
};
use rackmem_rack::{Event as RackEvent, Name, Plan, Rack, RackError, ReservationId, SegmentId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::compute::Machines;
use crate::counts::Counts;
use crate::deed::Deed;
use crate::error::ControllerError;
use crate::job::{Entry, Job};
use crate::news::News;
use crate::queue::{self, Full};
use crate::store::{self, Row, Stored};

/// Operations that have ended and are still remembered, with their idempotency keys: a day of one every second.
const ENDED_MAX: usize = 100_000;

/// Events in memory for listeners who come back.
const EVENTS_MAX: usize = 20_000;

/// Changes of the rack between two snapshots at least: replaying them at start takes about a second.
const SNAPSHOT_EVERY: u64 = 20_000;

/// Changes of the rack between two snapshots for each reservation: the more there are, the longer a snapshot takes, and all of them
/// together are to cost no more than the changes themselves.
const SNAPSHOT_EVERY_PER_RESERVATION: u64 = 4;

/// Things in one part of a snapshot: some hundred kilobytes of text.
const SNAPSHOT_PART: usize = 1000;

/// Seconds after which a refused request may fit into the queue.
const QUEUE_RETRY_S: u32 = 1;

/// A change that was queued for the store.
#[must_use = "nothing may be done before the change is on the disk"]
#[derive(Debug)]
pub(crate) struct Kept(oneshot::Receiver<()>);

impl Kept {
    /// Waits until it is on the disk.
    pub(crate) async fn wait(self) -> Result<(), Problem> {
        self.0.await.map_err(|_| {
            let detail = "the controller cannot write its state and decides nothing any more: look at its log, and restart it";
            Problem::new(ProblemType::Internal, detail)
        })
    }
}

/// What the lock guards.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) rack: Rack,
    pub(crate) operations: BTreeMap<u64, Entry>,
    by_id: HashMap<OperationId, u64>,
    /// By who asked and the key: what one calls a request is nobody else's affair.
    keys: HashMap<(String, String), (i64, u64)>,
    /// The keys of the operations that have one.
    key_of: HashMap<u64, String>,
    /// Those who wait for an operation's end hear of it when their sender is dropped.
    waiting: HashMap<u64, Vec<oneshot::Sender<()>>>,
    /// What those who carry operations out hear of their cancellation by.
    cancels: HashMap<u64, CancellationToken>,
    /// Plans that are held and not carried out yet.
    pub(crate) plans: HashMap<ReservationId, Plan>,
    /// What opens the segments on memory servers.
    pub(crate) deeds: BTreeMap<SegmentId, Deed>,
    /// Virtual machines over the rack.
    pub(crate) machines: Machines,
    /// Bricks and switches that obey another controller.
    pub(crate) overtaken: BTreeSet<Name>,
    seq: u64,
    history_seq: u64,
    snapshot_seq: u64,
    reservation: u64,
    pub(crate) running: usize,
    /// How many of them are whose.
    running_of: HashMap<String, usize>,
    /// Rows of the decision that is being made.
    pub(crate) rows: Vec<Row>,
}

/// The rack, all operations, and who is told of changes.
#[derive(Debug)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    changes: mpsc::UnboundedSender<store::Change>,
    pub(crate) news: Arc<EventLog<News>>,
    pub(crate) counts: Counts,
    pub(crate) reign: Generation,
    queue: usize,
}

impl Ledger {
    /// The ledger that was stored.
    pub(crate) fn new(
        stored: Stored,
        changes: mpsc::UnboundedSender<store::Change>,
        queue: usize,
    ) -> Result<Self, ControllerError> {
        let rack = stored.rack;
        if let Some(wrong) = rack.audit().into_iter().next() {
            return Err(RackError::Snapshot(wrong).into());
        }
        let first = stored.events.first().map_or(1, |news| news.event.id);
        let news = EventLog::new(first, EVENTS_MAX);
        for event in stored.events {
            news.publish(|_| event);
        }
        let mut state = State {
            rack,
            operations: BTreeMap::new(),
            by_id: HashMap::new(),
            keys: HashMap::new(),
            key_of: HashMap::new(),
            waiting: HashMap::new(),
            cancels: HashMap::new(),
            plans: stored.plans.into_iter().map(|(id, plan)| (ReservationId(id), plan)).collect(),
            deeds: stored.deeds,
            machines: Machines::new(stored.machines),
            overtaken: BTreeSet::new(),
            seq: 0,
            history_seq: stored.history_seq,
            snapshot_seq: stored.snapshot_seq,
            reservation: stored.reservation,
            running: 0,
            running_of: HashMap::new(),
            rows: Vec::new(),
        };
        for (seq, entry, key) in stored.operations {
            state.seq = seq;
            state.count(&entry.operation);
            state.by_id.insert(entry.operation.id, seq);
            if let Some(key) = key {
                state.remember_key(&entry.operation.by, &key, seq);
            }
            state.operations.insert(seq, entry);
        }
        Ok(Self {
            state: Mutex::new(state),
            changes,
            news: Arc::new(news),
            counts: Counts::default(),
            reign: Generation(stored.reign),
            queue,
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A decision that panicked was not queued; what it may have half changed is refused by the rack's own checks.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues what was decided for the store.
    pub(crate) fn keep(&self, mut state: MutexGuard<'_, State>) -> Kept {
        let every = SNAPSHOT_EVERY_PER_RESERVATION * state.rack.reservations().len() as u64;
        if state.history_seq - state.snapshot_seq >= every.max(SNAPSHOT_EVERY) {
            state.snapshot_seq = state.history_seq;
            let parts = state.rack.snapshot().into_parts(SNAPSHOT_PART);
            let snapshot = Row::Snapshot(state.history_seq, parts);
            state.rows.push(snapshot);
        }
        let (answer, kept) = oneshot::channel();
        // A store that is gone drops `answer`, and that is how its end is heard of.
        let _ = self.changes.send((std::mem::take(&mut state.rows), answer));
        Kept(kept)
    }

    /// Accepts an operation, or answers the one that the same request started before: then without a number, because there is
    /// nothing to be done. `begin` makes come true what comes true at once; when it refuses, nothing has changed.
    pub(crate) async fn accept(
        &self,
        change: &Change,
        kind: &str,
        begin: impl FnOnce(&mut State) -> Result<(String, Job, OperationState), Problem>,
    ) -> Result<(Operation, Option<u64>), Problem> {
        let accepted = self.judge(change, kind, begin).await;
        accepted.inspect_err(|problem| self.counts.refused(problem.kind))
    }

    async fn judge(
        &self,
        change: &Change,
        kind: &str,
        begin: impl FnOnce(&mut State) -> Result<(String, Job, OperationState), Problem>,
    ) -> Result<(Operation, Option<u64>), Problem> {
        let (operation, seq, kept) = {
            let mut state = self.lock();
            let known = change.key.as_ref().and_then(|key| {
                let of = (change.by.clone(), key.key.clone());
                Some((key, *state.keys.get(&of)?))
            });
            if let Some((key, (fingerprint, seq))) = known {
                key.same_request(fingerprint)?;
                if let Some(entry) = state.operations.get(&seq) {
                    // It may not be on the disk yet, so what comes after it is waited for.
                    let operation = entry.operation.clone();
                    (operation, None, self.keep(state))
                } else {
                    return Err(Problem::not_found("operation of the key", &key.key));
                }
            } else {
                self.reign.admit(change.generation)?;
                state.rows.clear();
                let (target, job, begun) = begin(&mut state)?;
                let project = job.project.clone();
                let entry = Entry { operation: new_operation(change, kind, target, begun), job };
                let (operation, seq) = (entry.operation.clone(), state.add(entry, change));
                if begun.is_final() {
                    self.tell_end(&mut state, &operation, project);
                }
                (operation, Some(seq), self.keep(state))
            }
        };
        kept.wait().await?;
        Ok((operation, seq))
    }

    /// Refuses work that would have to wait where enough waits already. What is done at once needs no room.
    pub(crate) fn room(&self, state: &State, by: &str) -> Result<(), Problem> {
        let own = state.running_of.get(by).copied().unwrap_or_default();
        let detail = match queue::room(self.queue, state.running, own) {
            Ok(()) => return Ok(()),
            Err(Full::All) => format!("{} operations wait already: try again in a moment", state.running),
            Err(Full::Yours) => format!(
                "{own} operations of '{by}' wait already, and what room is left is for others: try again in a moment"
            ),
        };
        Err(Problem::new(ProblemType::Unavailable, detail).retry_after(QUEUE_RETRY_S))
    }

    /// Ends an operation.
    pub(crate) fn end(&self, state: &mut State, seq: u64, how: OperationState, error: Option<Problem>) {
        let Some(entry) = state.operations.get_mut(&seq) else { return };
        entry.operation.state = how;
        entry.operation.error = error;
        if how == OperationState::Done {
            entry.operation.progress = 1.0;
        }
        // What is over needs no plan any more, and tens of thousands of plans are a lot of memory.
        entry.job.course = None;
        entry.job.undo = None;
        let by = entry.operation.by.clone();
        state.running = state.running.saturating_sub(1);
        state.discount(&by);
        state.waiting.remove(&seq);
        state.cancels.remove(&seq);
        state.save(seq);
        state.machine_settle(seq, how);
        let Some(entry) = state.operations.get(&seq) else { return };
        let (operation, project) = (entry.operation.clone(), entry.job.project.clone());
        self.tell_end(state, &operation, project);
        state.forget();
    }

    /// Asks an operation to end; one that still waits for its turn ends at once.
    pub(crate) fn cancel(&self, state: &mut State, seq: u64, by: &str) {
        let Some(entry) = state.operations.get_mut(&seq) else { return };
        entry.job.cancel = true;
        entry.job.cancelled_by.get_or_insert_with(|| by.to_owned());
        let (kind, target) = (entry.operation.kind.clone(), entry.operation.target.clone());
        let project = entry.job.project.clone();
        let ended = entry.job.is_untouched().then(|| entry.job.cancellation("nothing more is done"));
        state.save(seq);
        if let Some(cancel) = state.cancels.get(&seq) {
            cancel.cancel();
        }
        let detail = format!("{by} cancels {kind} of '{target}'");
        self.tell_of(state, project, "operation.cancel", &target, detail, None);
        if let Some(why) = ended {
            self.end(state, seq, OperationState::Cancelled, Some(why));
        }
    }

    fn tell_end(&self, state: &mut State, operation: &Operation, project: Option<String>) {
        let word = match operation.state {
            OperationState::Done => "done",
            OperationState::Failed => "failed",
            OperationState::Cancelled => "cancelled",
            OperationState::Running => return,
        };
        let after = Duration::from_millis(operation.updated_ms.saturating_sub(operation.created_ms));
        self.counts.ended(&operation.kind, word, after);
        let detail = match &operation.error {
            Some(error) => format!("{} of '{}' {word}: {error}", operation.kind, operation.target),
            None => format!("{} of '{}' is {word}", operation.kind, operation.target),
        };
        let kind = format!("operation.{word}");
        self.tell_of(state, project, &kind, &operation.target, detail, Some(operation.clone()));
    }

    /// Tells administrators who listen, now and later.
    pub(crate) fn tell(
        &self,
        state: &mut State,
        kind: &str,
        target: &str,
        detail: String,
        operation: Option<Operation>,
    ) {
        self.tell_of(state, None, kind, target, detail, operation);
    }

    /// Tells them and the members of a project.
    pub(crate) fn tell_of(
        &self,
        state: &mut State,
        project: Option<String>,
        kind: &str,
        target: &str,
        detail: String,
        operation: Option<Operation>,
    ) {
        self.counts.told(kind);
        let mut told = None;
        self.news.publish(|id| {
            let (kind, target) = (kind.to_owned(), target.to_owned());
            let event = Event { id, at_ms: now_ms(), kind, target, detail, operation };
            let news = News { event, project };
            told = Some(Box::new(news.clone()));
            news
        });
        state.rows.extend(told.map(Row::Told));
    }
}

impl State {
    /// Applies an event to the rack, and remembers it for the store.
    pub(crate) fn apply(&mut self, event: RackEvent, cause: Option<u64>) -> Result<(), RackError> {
        self.rack.apply(&event)?;
        self.note(event, cause);
        Ok(())
    }

    fn note(&mut self, event: RackEvent, cause: Option<u64>) {
        self.history_seq += 1;
        let operation = cause.and_then(|seq| self.operations.get(&seq));
        let operation = operation.map(|entry| entry.operation.id.to_string());
        let event = Box::new(event);
        self.rows.push(Row::Rack { seq: self.history_seq, at_ms: now_ms(), operation, event });
    }

    /// Applies all events or none.
    pub(crate) fn apply_all(&mut self, events: &[RackEvent]) -> Result<(), RackError> {
        // Registrations are few; everything else is one event.
        let mut trial = self.rack.clone();
        for event in events {
            trial.apply(event)?;
        }
        self.rack = trial;
        for event in events {
            self.note(event.clone(), None);
        }
        Ok(())
    }

    /// The number of the operation that is being accepted.
    pub(crate) fn seq_next(&self) -> u64 {
        self.seq + 1
    }

    /// Remembers a row for the store.
    pub(crate) fn note_row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Whether something has to be written.
    pub(crate) fn is_changed(&self) -> bool {
        !self.rows.is_empty()
    }

    /// A number for a new reservation.
    pub(crate) fn reservation_new(&mut self) -> ReservationId {
        self.reservation += 1;
        self.rows.push(Row::Reservation(self.reservation));
        ReservationId(self.reservation)
    }

    pub(crate) fn plan_hold(&mut self, plan: Plan) {
        self.rows.push(Row::PlanHeld(plan.reservation().0, Box::new(plan.clone())));
        self.plans.insert(plan.reservation(), plan);
    }

    pub(crate) fn plan_take(&mut self, id: ReservationId) -> Option<Plan> {
        let plan = self.plans.remove(&id)?;
        self.rows.push(Row::PlanGone(id.0));
        Some(plan)
    }

    pub(crate) fn find(&self, id: OperationId) -> Result<(u64, &Entry), Problem> {
        let found = self.by_id.get(&id).and_then(|seq| Some((*seq, self.operations.get(seq)?)));
        found.ok_or_else(|| Problem::not_found("operation", id))
    }

    /// Whether that number was ever given to a reservation here.
    pub(crate) fn was_reserved(&self, id: ReservationId) -> bool {
        id.0 <= self.reservation
    }

    /// The operation that has not ended and is to make that reservation.
    pub(crate) fn awaited(&self, id: ReservationId) -> Option<&Entry> {
        if !self.was_reserved(id) || self.running == 0 {
            return None;
        }
        let running = self.operations.values().rev().filter(|entry| !entry.operation.state.is_final());
        running.take(self.running).find(|entry| entry.job.work.makes() == Some(id))
    }

    /// Whether an operation has not ended yet.
    pub(crate) fn is_running(&self, id: OperationId) -> bool {
        self.find(id).is_ok_and(|(_, entry)| !entry.operation.state.is_final())
    }

    fn add(&mut self, entry: Entry, change: &Change) -> u64 {
        self.seq += 1;
        let seq = self.seq;
        self.count(&entry.operation);
        self.by_id.insert(entry.operation.id, seq);
        if let Some(key) = &change.key {
            self.remember_key(&change.by, key, seq);
        }
        // First, because what happens at once names it.
        let row = Row::Operation { seq, entry: Box::new(entry.clone()), key: change.key.clone() };
        self.rows.insert(0, row);
        self.operations.insert(seq, entry);
        seq
    }

    fn count(&mut self, operation: &Operation) {
        if !operation.state.is_final() {
            self.running += 1;
            *self.running_of.entry(operation.by.clone()).or_default() += 1;
        }
    }

    fn discount(&mut self, by: &str) {
        if let Some(count) = self.running_of.get_mut(by) {
            *count -= 1;
            if *count == 0 {
                self.running_of.remove(by);
            }
        }
    }

    fn remember_key(&mut self, by: &str, key: &IdempotencyKey, seq: u64) {
        self.keys.insert((by.to_owned(), key.key.clone()), (key.fingerprint, seq));
        self.key_of.insert(seq, key.key.clone());
    }

    /// Is cancelled when the operation is asked to end.
    pub(crate) fn cancel_of(&mut self, seq: u64) -> CancellationToken {
        self.cancels.entry(seq).or_default().clone()
    }

    /// Ends when the operation does.
    pub(crate) fn end_of(&mut self, seq: u64) -> oneshot::Receiver<()> {
        let (heard, end) = oneshot::channel();
        let waiting = self.waiting.entry(seq).or_default();
        // Who asked before may have given up.
        waiting.retain(|sender| !sender.is_closed());
        waiting.push(heard);
        end
    }

    /// Remembers an operation as it is now for the store.
    pub(crate) fn save(&mut self, seq: u64) {
        let Some(entry) = self.operations.get_mut(&seq) else { return };
        entry.operation.updated_ms = now_ms();
        self.rows.push(Row::Changed { seq, entry: Box::new(entry.clone()) });
    }

    /// Remembers for the store that a further step was begun.
    pub(crate) fn save_begun(&mut self, seq: u64) {
        let Some(entry) = self.operations.get_mut(&seq) else { return };
        entry.operation.updated_ms = now_ms();
        self.rows.push(Row::Begun { seq, begun: entry.job.begun, undone: entry.job.undone });
    }

    /// Forgets the oldest operations that have ended.
    fn forget(&mut self) {
        if self.operations.len() <= ENDED_MAX + self.running {
            return;
        }
        let oldest = self.operations.iter().find(|(_, entry)| entry.operation.state.is_final());
        let Some(seq) = oldest.map(|(seq, _)| *seq) else { return };
        if let Some(entry) = self.operations.remove(&seq) {
            self.by_id.remove(&entry.operation.id);
            if let Some(key) = self.key_of.remove(&seq) {
                self.keys.remove(&(entry.operation.by, key));
            }
            self.rows.push(Row::Forget(seq));
        }
    }
}

fn new_operation(change: &Change, kind: &str, target: String, state: OperationState) -> Operation {
    let now = now_ms();
    Operation {
        id: OperationId(Uuid::now_v7()),
        kind: kind.to_owned(),
        target,
        state,
        step: None,
        progress: if state.is_final() { 1.0 } else { 0.0 },
        error: None,
        note: None,
        generation: change.generation.0,
        by: change.by.clone(),
        created_ms: now,
        updated_ms: now,
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
