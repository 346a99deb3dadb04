//! A worker: one operation from its course to its end.
//!
//! Every leg is recorded before it is begun, so that whoever comes after a crash does the last one again and goes on. A leg
//! that fails has the course undone, the last leg first; what cannot be undone any more is tried until it succeeds.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rackmem_api::problem::ProblemType;
use rackmem_api::{OperationState, Problem};
use rackmem_rack::{Brick, Event, Name, Quotas, RackError, Step};
use rackmem_types::{Bytes, PAGE_SIZE};
use tokio::sync::OwnedSemaphorePermit;

use crate::compute::{Course, Leg, Told};
use crate::deed::Placed;
use crate::dispatch::Lines;
use crate::doing::Doing;
use crate::error::problem;
use crate::hands::Hands;
use crate::job::Work;
use crate::ledger::{Kept, Ledger, State};
use crate::overtaken::is_overtaken;
use crate::planning::{course, goes_on};
use crate::repair;

/// How often a step is tried whose brick was busy or away for a moment.
const TRIES: u32 = 3;

/// The pause before a step is tried again; each pause is twice the one before.
const PAUSE: Duration = Duration::from_millis(50);

/// The longest pause: a brick that comes back is found soon enough.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How long a worker keeps its place while somebody does not answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// One operation's worker.
pub(crate) struct Worker {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) hands: Arc<dyn Hands>,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) lines: Arc<Lines>,
    /// The operation's number.
    pub(crate) seq: u64,
    /// Its place among the workers; given up when it has to wait.
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

/// What becomes of a leg that fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needed {
    /// The operation fails, and is undone.
    May,
    /// It is tried until it succeeds: there is only the way on.
    Must,
    /// The same, on the way back: nothing was in use yet of what it takes away.
    Back,
}

/// What is to be done with an operation.
enum Task {
    /// Nothing any more.
    Ended,
    /// This course, from that leg on.
    Forward(Box<Course>, usize),
    /// These legs of the way back, from that one on.
    Back(Vec<Leg>, usize),
}

impl Worker {
    /// Carries the operation out.
    pub(crate) async fn run(mut self) {
        // The store's end, or another controller's reign, has been logged where it was met.
        let _ = self.carry_out().await;
    }

    async fn carry_out(&mut self) -> Result<(), Problem> {
        if let Some(steps) = self.repair() {
            return repair::carry_out(&self.ledger, &*self.hands, self.seq, &steps).await;
        }
        loop {
            match self.task().await? {
                Task::Ended => return Ok(()),
                Task::Forward(course, from) => self.forward(&course, from).await?,
                Task::Back(legs, from) => self.back(&legs, from).await?,
            }
        }
    }

    /// The steps of a repair that is not done yet.
    fn repair(&self) -> Option<Vec<Step>> {
        let state = self.ledger.lock();
        let entry = state.operations.get(&self.seq)?;
        match &entry.job.work {
            Work::Repair(steps) if !entry.operation.state.is_final() => Some(steps.clone()),
            _ => None,
        }
    }

    async fn task(&self) -> Result<Task, Problem> {
        let (task, kept) = {
            let mut state = self.ledger.lock();
            let Some(entry) = state.operations.get(&self.seq) else { return Ok(Task::Ended) };
            let job = &entry.job;
            // What was begun last may have been done or not.
            let again = |begun: usize| begun.saturating_sub(1);
            let task = match (&job.undo, &job.course) {
                _ if entry.operation.state.is_final() => return Ok(Task::Ended),
                (Some(legs), _) => return Ok(Task::Back(legs.clone(), again(job.undone))),
                (None, Some(course)) => return Ok(Task::Forward(course.clone(), again(job.begun))),
                (None, None) if job.cancel && job.told.is_none() => {
                    let why = job.cancellation("nothing more is done");
                    self.ledger.end(&mut state, self.seq, OperationState::Cancelled, Some(why));
                    Task::Ended
                }
                (None, None) => {
                    let (work, told) = (job.work.clone(), job.told);
                    match course(&mut state, &self.quotas, &work, told, self.seq) {
                        Ok(Some(course)) => {
                            let course = Box::new(course);
                            if let Some(entry) = state.operations.get_mut(&self.seq) {
                                entry.job.course = Some(course.clone());
                                entry.job.begun = 0;
                            }
                            state.save(self.seq);
                            Task::Forward(course, 0)
                        }
                        Ok(None) => {
                            self.ledger.end(&mut state, self.seq, OperationState::Done, None);
                            Task::Ended
                        }
                        Err(error) => {
                            self.cannot(&mut state, &work, &error);
                            Task::Ended
                        }
                    }
                }
            };
            (task, self.ledger.keep(state))
        };
        kept.wait().await?;
        Ok(task)
    }

    /// Ends the operation for whose work there is no plan. Of a brick that is lost nothing can be moved, and nothing has to be: to
    /// believe that it is lost is all that was asked for.
    fn cannot(&self, state: &mut State, work: &Work, error: &RackError) {
        let mut failure = problem(error);
        if let Work::Drain(brick) = work {
            if state.rack.brick(brick).is_ok_and(Brick::is_lost) {
                if let Some(entry) = state.operations.get_mut(&self.seq) {
                    entry.operation.note = Some(after_loss(brick, error));
                }
                return self.ledger.end(state, self.seq, OperationState::Done, None);
            }
            failure.detail += &after_drain(brick);
        }
        self.ledger.end(state, self.seq, OperationState::Failed, Some(failure));
    }

    async fn forward(&mut self, course: &Course, from: usize) -> Result<(), Problem> {
        let legs = course.legs();
        for (at, leg) in legs.iter().enumerate().skip(from) {
            let undoable = at < course.undoable_until();
            let Some((mut doing, kept)) = self.begin_leg(course, at, leg, legs.len()) else {
                let gone = || Problem::not_found("operation", self.seq);
                return self.turn_back(course, self.cancelled().unwrap_or_else(gone)).await;
            };
            kept.wait().await?;
            let told = match self.try_leg(&doing, if undoable { Needed::May } else { Needed::Must }).await {
                Ok(told) => told,
                Err(problem) => {
                    if course.undo(&self.ledger.lock().rack, at + 1).is_ok() {
                        let problem = match problem.kind {
                            ProblemType::Cancelled => self.cancelled().unwrap_or(problem),
                            _ => problem,
                        };
                        return self.turn_back(course, problem).await;
                    }
                    // Another reservation has taken the way back: there is only the way on.
                    doing.carry_through();
                    self.try_leg(&doing, Needed::Must).await?
                }
            };
            self.remember(told).await?;
        }
        let kept = {
            let mut state = self.ledger.lock();
            let done = course.plan().map(|plan| Event::Done(plan.reservation()));
            if let Some(Err(error)) = done.map(|event| state.apply(event, Some(self.seq))) {
                let error = problem(&error);
                self.ledger.end(&mut state, self.seq, OperationState::Failed, Some(error));
            } else {
                match state.operations.get_mut(&self.seq) {
                    Some(entry) if goes_on(&entry.job) => {
                        entry.job.course = None;
                        entry.job.begun = 0;
                        state.save(self.seq);
                    }
                    _ => {
                        note_size(&mut state, self.seq);
                        self.ledger.end(&mut state, self.seq, OperationState::Done, None);
                    }
                }
            }
            self.ledger.keep(state)
        };
        kept.wait().await
    }

    /// Why it ended, if that was asked for.
    fn cancelled(&self) -> Option<Problem> {
        let state = self.ledger.lock();
        let job = &state.operations.get(&self.seq)?.job;
        job.cancel.then(|| job.cancellation("what had been done is undone"))
    }

    /// Records that a leg is begun; `None` if the operation was cancelled and can be undone.
    fn begin_leg(&self, course: &Course, at: usize, leg: &Leg, of: usize) -> Option<(Doing, Kept)> {
        let mut state = self.ledger.lock();
        let last = course.undoable_until();
        let has_way_back = course.turns_back(&state.rack, at);
        let entry = state.operations.get_mut(&self.seq)?;
        if entry.job.cancel && has_way_back {
            return None;
        }
        entry.job.begun = at + 1;
        entry.operation.step = Some(leg.to_string());
        entry.operation.progress = at as f64 / of as f64;
        state.save_begun(self.seq);
        if let Leg::Step(Step::SegmentCreate { brick, segment, .. }) = leg {
            state.deed_draw(*segment, brick);
        }
        let mut doing = Doing::new(&state, self.ledger.reign, course, leg);
        if at < last && course.undo(&state.rack, at + 1).is_ok() {
            doing.cancel_by(state.cancel_of(self.seq));
        }
        Some((doing, self.ledger.keep(state)))
    }

    /// Keeps what an errand told.
    async fn remember(&self, told: Told) -> Result<(), Problem> {
        if told == Told::default() {
            return Ok(());
        }
        let kept = {
            let mut state = self.ledger.lock();
            if let Some(entry) = state.operations.get_mut(&self.seq) {
                entry.job.told = told.size.or(entry.job.told);
                entry.operation.note = told.note.or(entry.operation.note.take());
            }
            state.save(self.seq);
            self.ledger.keep(state)
        };
        kept.wait().await
    }

    /// Decides how the course is undone.
    async fn turn_back(&self, course: &Course, failure: Problem) -> Result<(), Problem> {
        let kept = {
            let mut state = self.ledger.lock();
            let begun = state.operations.get(&self.seq).map_or(0, |entry| entry.job.begun);
            let undoing = course.plan().map(|plan| Event::Undoing(plan.reservation()));
            let legs = course.undo(&state.rack, begun).and_then(|legs| {
                undoing.map_or(Ok(()), |event| state.apply(event, Some(self.seq))).map(|()| legs)
            });
            match legs {
                Ok(legs) => {
                    if let Some(entry) = state.operations.get_mut(&self.seq) {
                        entry.job.undo = Some(legs);
                        entry.job.failure = Some(failure);
                    }
                    state.save(self.seq);
                }
                Err(error) => {
                    let error = problem(&error);
                    self.ledger.end(&mut state, self.seq, OperationState::Failed, Some(error));
                }
            }
            self.ledger.keep(state)
        };
        kept.wait().await
    }

    async fn back(&mut self, legs: &[Leg], from: usize) -> Result<(), Problem> {
        let course = self.ledger.lock().operations.get(&self.seq).and_then(|entry| entry.job.course.clone());
        let Some(course) = course else { return Ok(()) };
        for (at, leg) in legs.iter().enumerate().skip(from) {
            let (doing, kept) = {
                let mut state = self.ledger.lock();
                let Some(entry) = state.operations.get_mut(&self.seq) else { return Ok(()) };
                entry.job.undone = at + 1;
                entry.operation.step = Some(format!("undo: {leg}"));
                state.save_begun(self.seq);
                (Doing::new(&state, self.ledger.reign, &course, leg), self.ledger.keep(state))
            };
            kept.wait().await?;
            self.try_leg(&doing, Needed::Back).await?;
        }
        let kept = {
            let mut state = self.ledger.lock();
            let undone = course.plan().map(|plan| Event::Undone(plan.reservation()));
            let error = undone.and_then(|event| state.apply(event, Some(self.seq)).err());
            let failure = state.operations.get(&self.seq).and_then(|entry| entry.job.failure.clone());
            let failure = error.map(|error| problem(&error)).or(failure);
            let cancelled = failure.as_ref().is_some_and(|failure| failure.kind == ProblemType::Cancelled);
            let how = if cancelled { OperationState::Cancelled } else { OperationState::Failed };
            self.ledger.end(&mut state, self.seq, how, failure);
            self.ledger.keep(state)
        };
        kept.wait().await
    }

    /// Does a leg; one that is needed is tried until it succeeds, or until there is nobody who could do it.
    async fn try_leg(&mut self, doing: &Doing, needed: Needed) -> Result<Told, Problem> {
        let mut pause = PAUSE;
        let mut tried = 0u32;
        loop {
            tried = tried.saturating_add(1);
            let failure = match self.attempt(doing).await {
                Ok(told) => return Ok(told),
                Err(failure) => failure,
            };
            if is_overtaken(&failure) {
                return self.overtaken(doing, needed, failure).await;
            }
            if needed != Needed::May && self.is_moot(doing, needed, &failure, tried) {
                return Ok(Told::default());
            }
            let passing =
                matches!(failure.kind, ProblemType::Unavailable | ProblemType::Busy | ProblemType::Timeout);
            if needed == Needed::May && (!passing || tried >= TRIES) {
                return Err(failure);
            }
            if tried >= TRIES {
                self.place = None;
                let mut state = self.ledger.lock();
                if let Some(entry) = state.operations.get_mut(&self.seq) {
                    entry.operation.step = Some(format!("{doing}; tried {tried} times: {failure}"));
                }
            }
            tokio::time::sleep(pause).await;
            self.ledger.counts.step_retried();
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// What becomes of a leg whose brick obeys another controller. The way back goes on without it; what cannot be undone stands still
    /// until this controller is started anew, because the memory servers' part of it would take memory away that may be in use.
    async fn overtaken(&self, doing: &Doing, needed: Needed, failure: Problem) -> Result<Told, Problem> {
        let (problem, kept) = {
            let mut state = self.ledger.lock();
            let problem = self.ledger.overtaken(&mut state, doing.asked(), failure);
            if let Some(entry) = state.operations.get_mut(&self.seq) {
                match needed {
                    Needed::May => {}
                    Needed::Must => entry.operation.step = Some(format!("{doing}; stands still: {problem}")),
                    Needed::Back => entry.job.failure = Some(problem.clone()),
                }
                state.save(self.seq);
            }
            (problem, self.ledger.keep(state))
        };
        kept.wait().await?;
        if needed == Needed::Back { Ok(Told::default()) } else { Err(problem) }
    }

    /// Does a leg once, when it is its turn.
    async fn attempt(&mut self, doing: &Doing) -> Result<Told, Problem> {
        let _turn = match self.lines.turn(doing.asked()) {
            Ok(turn) => Some(turn),
            Err(line) => {
                self.place = None;
                tokio::select! {
                    // A line is never closed.
                    turn = line.acquire_owned() => turn.ok(),
                    () = doing.cancelled() => {
                        return Err(Problem::new(ProblemType::Cancelled, "it was not its turn yet"));
                    }
                }
            }
        };
        let hands = Arc::clone(&self.hands);
        let work = async {
            match doing {
                Doing::Step(order) => hands.carry_out(order).await.map(|place| (place, Told::default())),
                Doing::Errand(call) => hands.errand(call).await.map(|told| (None, told)),
            }
        };
        let mut work = pin!(work);
        let done = match tokio::time::timeout(PATIENCE, &mut work).await {
            Ok(done) => done,
            Err(_) => {
                self.place = None;
                work.await
            }
        };
        let (place, told) = done?;
        if let Doing::Step(order) = doing {
            self.note(&order.step, place).await?;
        }
        Ok(told)
    }

    /// Whether what is to be taken away cannot be, because there is nobody to be asked. Should they come back with it, the watch takes
    /// it away.
    fn is_moot(&self, doing: &Doing, needed: Needed, failure: &Problem, tried: u32) -> bool {
        let (is_lost, was_asked) = {
            let state = self.ledger.lock();
            let brick = state.rack.brick(doing.asked()).ok();
            (brick.is_some_and(Brick::is_lost), brick.is_none_or(|brick| brick.spec().address.is_some()))
        };
        if !was_asked {
            return true;
        }
        if !matches!(failure.kind, ProblemType::Unavailable | ProblemType::Timeout) {
            return false;
        }
        match doing {
            Doing::Step(order) => match order.step {
                Step::SegmentRemove { .. } => failure.kind == ProblemType::Unavailable,
                Step::NetPortRemove { .. } if needed == Needed::Back => tried >= TRIES,
                _ => is_lost,
            },
            Doing::Errand(_) => is_lost,
        }
    }

    /// Notes what a step made or removed on a memory server.
    async fn note(&self, step: &Step, place: Option<Placed>) -> Result<(), Problem> {
        let kept = {
            let mut state = self.ledger.lock();
            match (step, place) {
                (Step::SegmentCreate { segment, .. }, Some(place)) => state.deed_place(*segment, place),
                (Step::SegmentRemove { segment, .. }, _) => state.deed_end(*segment),
                _ => return Ok(()),
            }
            self.ledger.keep(state)
        };
        kept.wait().await
    }
}

/// How a brick is left by a drain that failed.
fn after_drain(brick: &Name) -> String {
    format!("; {brick} takes nothing new until 'rackmem brick drain {brick} --end'")
}

/// How a brick is left that is lost and of which something is held.
fn after_loss(brick: &Name, error: &RackError) -> String {
    let held = match error {
        RackError::InUse { reasons, .. } => reasons.join("; "),
        RackError::Refused(refusal) => refusal.shortage.to_string(),
        error => error.to_string(),
    };
    format!("counts as lost; {held}: release or delete what needs it, then 'rackmem brick remove {brick}'")
}

/// Notes what a reservation has that did not get the size that was asked for.
fn note_size(state: &mut State, seq: u64) {
    let Some(entry) = state.operations.get_mut(&seq) else { return };
    let Work::Resize { id, memory } = entry.job.work else { return };
    let Ok(reservation) = state.rack.reservation(id) else { return };
    let has = Bytes::from_pages(reservation.pages());
    if has.0.abs_diff(memory.0) >= PAGE_SIZE as u64 {
        entry.operation.note = Some(format!("has {has}: memory is given back by whole segments"));
    }
}
