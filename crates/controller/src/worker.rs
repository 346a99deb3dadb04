//! A worker: one operation from its course to its end.
//!
//! Every leg is recorded before it is begun, so that whoever comes after a crash does the last one again and goes on. A leg
//! that fails has the course undone, the last leg first; what cannot be undone any more is tried until it succeeds.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rackmem_api::problem::ProblemType;
use rackmem_api::{OperationState, Problem};
use rackmem_rack::{Brick, Event, Name, Plan, Quotas, RackError, State as Stand, Step, planner};
use rackmem_types::{Bytes, PAGE_SIZE};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::compute::{self, Call, Course, Leg, MachineWork, Told};
use crate::deed::Placed;
use crate::dispatch::Lines;
use crate::error::problem;
use crate::hands::Hands;
use crate::job::{Job, Work};
use crate::ledger::{Kept, Ledger, State};
use crate::order::{self, Order};
use crate::overtaken::is_overtaken;
use crate::repair;
use crate::views::class_of;

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
                            let mut error = problem(&error);
                            if let Work::Drain(brick) = &work {
                                error.detail += &after_drain(&state, brick);
                            }
                            self.ledger.end(&mut state, self.seq, OperationState::Failed, Some(error));
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
        let has_way_back = at <= last && last > 0 && course.undo(&state.rack, at).is_ok();
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
        let mut doing = self.doing(&state, course, leg);
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
                (self.doing(&state, &course, leg), self.ledger.keep(state))
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
        if !matches!(failure.kind, ProblemType::Unavailable | ProblemType::Timeout) {
            return false;
        }
        let is_lost = self.ledger.lock().rack.brick(doing.asked()).is_ok_and(Brick::is_lost);
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

    fn doing(&self, state: &State, course: &Course, leg: &Leg) -> Doing {
        let (rack, reign) = (&state.rack, self.ledger.reign);
        match leg {
            Leg::Step(step) => {
                let reservation = course.plan().and_then(|plan| rack.reservation(plan.reservation()).ok());
                let class = reservation.map(|reservation| reservation.request.class);
                let class = class_of(class.unwrap_or(rackmem_rack::LatencyClass::Interrack));
                Doing::Step(Order::new(state, reign, class, step.clone()))
            }
            Leg::Errand(errand) => {
                let address = order::address(rack, errand.brick());
                Doing::Errand(Call {
                    errand: errand.clone(),
                    reign,
                    address,
                    cancel: CancellationToken::new(),
                })
            }
        }
    }
}

/// A leg, with all that has to be known for it.
#[derive(Debug)]
enum Doing {
    Step(Order),
    Errand(Call),
}

impl Doing {
    /// An errand may be given up, when it is cancelled by this.
    fn cancel_by(&mut self, cancel: CancellationToken) {
        if let Self::Errand(call) = self {
            call.cancel = cancel;
        }
    }

    /// It may not be given up any more.
    fn carry_through(&mut self) {
        self.cancel_by(CancellationToken::new());
    }

    async fn cancelled(&self) {
        match self {
            Self::Errand(call) => call.cancel.cancelled().await,
            Self::Step(_) => std::future::pending().await,
        }
    }

    /// The brick or switch that is asked.
    fn asked(&self) -> &Name {
        match self {
            Self::Step(order) => order.asked(),
            Self::Errand(call) => call.errand.brick(),
        }
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(order) => order.step.fmt(f),
            Self::Errand(call) => call.errand.fmt(f),
        }
    }
}

/// How a brick is left by a drain that failed.
fn after_drain(state: &State, brick: &Name) -> String {
    if state.rack.brick(brick).is_ok_and(Brick::is_lost) {
        format!("; {brick} counts as lost: release what needs it, then remove it")
    } else {
        format!("; {brick} takes nothing new until 'rackmem brick drain {brick} --end'")
    }
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

/// Whether another course may follow: of a drain the next plan, of a resize what is given back.
fn goes_on(job: &Job) -> bool {
    match &job.work {
        Work::Drain(_) => true,
        Work::Machine { what: MachineWork::Resize(_), .. } => {
            job.told.is_some() && !job.course.as_ref().is_some_and(|course| course.gives_back())
        }
        _ => false,
    }
}

/// The course for some work, its plan accepted; none if nothing has to be carried out. `told` is what came of the one before.
fn course(
    state: &mut State,
    quotas: &Quotas,
    work: &Work,
    told: Option<Bytes>,
    seq: u64,
) -> Result<Option<Course>, RackError> {
    match work {
        Work::Machine { name, what } => compute::course(state, quotas, (name, what), told, seq),
        work => Ok(plan(state, quotas, work, seq)?.map(Course::of)),
    }
}

/// The plan for some work on the rack, accepted; none if nothing has to be carried out.
fn plan(state: &mut State, quotas: &Quotas, work: &Work, seq: u64) -> Result<Option<Plan>, RackError> {
    let rack = &state.rack;
    let plan = match work {
        // These have no plan.
        Work::Register(_) | Work::Repair(_) | Work::Machine { .. } => return Ok(None),
        Work::Drain(brick) => match planner::drain_next(rack, brick)? {
            Some(plan) => plan,
            None => return Ok(None),
        },
        Work::Reserve { id, request, apply } => {
            quotas.check(rack, request)?;
            let plan = planner::reserve(rack, *id, request)?;
            state.apply(Event::Accepted(Box::new(plan.clone())), Some(seq))?;
            if !apply {
                state.plan_hold(plan);
                return Ok(None);
            }
            state.apply(Event::Started(*id), Some(seq))?;
            return Ok(Some(plan));
        }
        Work::Apply(id) => {
            let is = rack.reservation(*id)?.state;
            let Some(plan) = state.plan_take(*id) else {
                return Err(RackError::State { id: *id, is, needs: "only a reserved one can be applied" });
            };
            state.apply(Event::Started(*id), Some(seq))?;
            return Ok(Some(plan));
        }
        Work::Resize { id, memory } => {
            let reservation = rack.reservation(*id)?;
            let has = Bytes::from_pages(reservation.pages());
            match memory.0.cmp(&has.0) {
                std::cmp::Ordering::Equal => return Ok(None),
                std::cmp::Ordering::Greater => {
                    let more = Bytes(memory.0 - has.0);
                    quotas.check_more(rack, &reservation.request.project, reservation.request.class, more)?;
                    planner::grow(rack, *id, more)?
                }
                std::cmp::Ordering::Less => planner::shrink(rack, *id, Bytes(has.0 - memory.0))?,
            }
        }
        Work::Release(id) => {
            let plan = planner::release(rack, *id)?;
            if rack.reservation(*id)?.state == Stand::Reserved {
                state.plan_take(*id);
            }
            plan
        }
    };
    state.apply(Event::Accepted(Box::new(plan.clone())), Some(seq))?;
    Ok(Some(plan))
}
