//! A worker: one operation from its plan to its end.
//!
//! Every step is recorded before it is begun, so that whoever comes after a crash does the last one again and goes on. A step
//! that fails has the plan undone, the last step first; what cannot be undone any more is tried until it succeeds.

use std::sync::Arc;
use std::time::Duration;

use rackmem_api::problem::ProblemType;
use rackmem_api::{OperationState, Problem};
use rackmem_rack::{Event, Plan, Quotas, RackError, State as Stand, Step, planner};
use tokio::sync::OwnedSemaphorePermit;

use crate::deed::Placed;
use crate::error::problem;
use crate::hands::Hands;
use crate::job::Work;
use crate::ledger::{Kept, Ledger, State};
use crate::order::Order;
use crate::repair;
use crate::views::class_of;

/// How often a step is tried whose brick was busy or away for a moment.
const TRIES: u32 = 3;

/// The pause before a step is tried again; each pause is twice the one before.
const PAUSE: Duration = Duration::from_millis(50);

/// The longest pause: a brick that comes back is found soon enough.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// One operation's worker.
pub(crate) struct Worker {
    ledger: Arc<Ledger>,
    hands: Arc<dyn Hands>,
    quotas: Arc<Quotas>,
    seq: u64,
    /// Its place among the workers; given up while it waits for a brick that is away.
    place: Option<OwnedSemaphorePermit>,
}

/// What is to be done with an operation.
enum Task {
    /// Nothing any more.
    Ended,
    /// These steps, from that one on.
    Forward(Box<Plan>, usize),
    /// These steps back, from that one on.
    Back(Vec<Step>, usize),
}

impl Worker {
    pub(crate) fn new(
        ledger: Arc<Ledger>,
        hands: Arc<dyn Hands>,
        quotas: Arc<Quotas>,
        seq: u64,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self { ledger, hands, quotas, seq, place: Some(place) }
    }

    /// Carries the operation out.
    pub(crate) async fn run(mut self) {
        // The store's end has been logged where it happened.
        let _ = self.carry_out().await;
    }

    async fn carry_out(&mut self) -> Result<(), Problem> {
        if let Some(steps) = self.repair() {
            return repair::carry_out(&self.ledger, &*self.hands, self.seq, &steps).await;
        }
        loop {
            match self.task().await? {
                Task::Ended => return Ok(()),
                Task::Forward(plan, from) => self.forward(&plan, from).await?,
                Task::Back(steps, from) => self.back(&steps, from).await?,
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
            let task = match (&job.undo, &job.plan) {
                _ if entry.operation.state.is_final() => return Ok(Task::Ended),
                (Some(steps), _) => return Ok(Task::Back(steps.clone(), again(job.undone))),
                (None, Some(plan)) => return Ok(Task::Forward(plan.clone(), again(job.begun))),
                (None, None) if job.cancel => {
                    self.ledger.end(&mut state, self.seq, OperationState::Cancelled, None);
                    Task::Ended
                }
                (None, None) => {
                    let work = job.work.clone();
                    match plan(&mut state, &self.quotas, &work, self.seq) {
                        Ok(Some(plan)) => {
                            let plan = Box::new(plan);
                            if let Some(entry) = state.operations.get_mut(&self.seq) {
                                entry.job.plan = Some(plan.clone());
                                entry.job.begun = 0;
                            }
                            state.save(self.seq);
                            Task::Forward(plan, 0)
                        }
                        Ok(None) => {
                            self.ledger.end(&mut state, self.seq, OperationState::Done, None);
                            Task::Ended
                        }
                        Err(error) => {
                            let error = problem(&error);
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

    async fn forward(&mut self, plan: &Plan, from: usize) -> Result<(), Problem> {
        for (at, step) in plan.steps().iter().enumerate().skip(from) {
            let undoable = at < plan.undoable_until();
            let Some((order, kept)) = self.begin_step(plan, at, step) else {
                let detail = "it was cancelled, and what had been done is undone";
                return self.turn_back(plan, Problem::new(ProblemType::Cancelled, detail)).await;
            };
            kept.wait().await?;
            if let Err(problem) = self.try_step(&order, !undoable).await {
                if planner::undo(&self.ledger.lock().rack, plan, at + 1).is_ok() {
                    return self.turn_back(plan, problem).await;
                }
                // Another reservation has taken the way back: there is only the way on.
                self.try_step(&order, true).await?;
            }
        }
        let kept = {
            let mut state = self.ledger.lock();
            if let Err(error) = state.apply(Event::Done(plan.reservation()), Some(self.seq)) {
                let error = problem(&error);
                self.ledger.end(&mut state, self.seq, OperationState::Failed, Some(error));
            } else {
                let entry = state.operations.get_mut(&self.seq);
                match entry {
                    // A drain goes on with the next plan.
                    Some(entry) if matches!(entry.job.work, Work::Drain(_)) => {
                        entry.job.plan = None;
                        entry.job.begun = 0;
                        state.save(self.seq);
                    }
                    _ => self.ledger.end(&mut state, self.seq, OperationState::Done, None),
                }
            }
            self.ledger.keep(state)
        };
        kept.wait().await
    }

    /// Records that a step is begun; `None` if the operation was cancelled and can be undone.
    fn begin_step(&self, plan: &Plan, at: usize, step: &Step) -> Option<(Order, Kept)> {
        let mut state = self.ledger.lock();
        let last = plan.undoable_until();
        let has_way_back = at <= last && last > 0 && planner::undo(&state.rack, plan, at).is_ok();
        let entry = state.operations.get_mut(&self.seq)?;
        if entry.job.cancel && has_way_back {
            return None;
        }
        entry.job.begun = at + 1;
        entry.operation.step = Some(step.to_string());
        entry.operation.progress = at as f64 / plan.steps().len() as f64;
        state.save_begun(self.seq);
        if let Step::SegmentCreate { brick, segment, .. } = step {
            state.deed_draw(*segment, brick);
        }
        Some((self.order(&state, plan, step), self.ledger.keep(state)))
    }

    /// Decides how the plan is undone.
    async fn turn_back(&self, plan: &Plan, failure: Problem) -> Result<(), Problem> {
        let kept = {
            let mut state = self.ledger.lock();
            let begun = state.operations.get(&self.seq).map_or(0, |entry| entry.job.begun);
            let steps = planner::undo(&state.rack, plan, begun).and_then(|steps| {
                state.apply(Event::Undoing(plan.reservation()), Some(self.seq)).map(|()| steps)
            });
            match steps {
                Ok(steps) => {
                    if let Some(entry) = state.operations.get_mut(&self.seq) {
                        entry.job.undo = Some(steps);
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

    async fn back(&mut self, steps: &[Step], from: usize) -> Result<(), Problem> {
        let plan = self.ledger.lock().operations.get(&self.seq).and_then(|entry| entry.job.plan.clone());
        let Some(plan) = plan else { return Ok(()) };
        for (at, step) in steps.iter().enumerate().skip(from) {
            let (order, kept) = {
                let mut state = self.ledger.lock();
                let Some(entry) = state.operations.get_mut(&self.seq) else { return Ok(()) };
                entry.job.undone = at + 1;
                entry.operation.step = Some(format!("undo: {step}"));
                state.save_begun(self.seq);
                (self.order(&state, &plan, step), self.ledger.keep(state))
            };
            kept.wait().await?;
            self.try_step(&order, true).await?;
        }
        let kept = {
            let mut state = self.ledger.lock();
            let error = state.apply(Event::Undone(plan.reservation()), Some(self.seq)).err();
            let failure = state.operations.get(&self.seq).and_then(|entry| entry.job.failure.clone());
            let failure = error.map(|error| problem(&error)).or(failure);
            let cancelled = failure.as_ref().is_some_and(|failure| failure.kind == ProblemType::Cancelled);
            let how = if cancelled { OperationState::Cancelled } else { OperationState::Failed };
            self.ledger.end(&mut state, self.seq, how, failure);
            self.ledger.keep(state)
        };
        kept.wait().await
    }

    /// Does a step; one that has to be done is tried until it succeeds.
    async fn try_step(&mut self, order: &Order, must: bool) -> Result<(), Problem> {
        let mut pause = PAUSE;
        for tried in 1u32.. {
            let failure = match self.hands.carry_out(order).await {
                Ok(place) => return self.note(&order.step, place).await,
                // Nobody can be asked. Should the server come back with the segment, the watch destroys it.
                Err(failure) if is_out_of_reach(&order.step, &failure) => return Ok(()),
                Err(failure) => failure,
            };
            let passing =
                matches!(failure.kind, ProblemType::Unavailable | ProblemType::Busy | ProblemType::Timeout);
            if !must && (!passing || tried >= TRIES) {
                return Err(failure);
            }
            if tried >= TRIES {
                self.place = None;
                let mut state = self.ledger.lock();
                if let Some(entry) = state.operations.get_mut(&self.seq) {
                    entry.operation.step = Some(format!("{}; tried {tried} times: {failure}", order.step));
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Ok(())
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

    fn order(&self, state: &State, plan: &Plan, step: &Step) -> Order {
        let class = state.rack.reservation(plan.reservation()).map(|reservation| reservation.request.class);
        let class = class_of(class.unwrap_or(rackmem_rack::LatencyClass::Interrack));
        Order::new(state, self.ledger.reign, class, step.clone())
    }
}

/// Whether a segment cannot be removed because its server does not answer.
fn is_out_of_reach(step: &Step, failure: &Problem) -> bool {
    matches!(step, Step::SegmentRemove { .. }) && failure.kind == ProblemType::Unavailable
}

/// The plan for some work, accepted; none if nothing has to be carried out.
fn plan(state: &mut State, quotas: &Quotas, work: &Work, seq: u64) -> Result<Option<Plan>, RackError> {
    let rack = &state.rack;
    let plan = match work {
        // These have no plan.
        Work::Register(_) | Work::Repair(_) => return Ok(None),
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
            let has = rackmem_types::Bytes::from_pages(reservation.pages());
            match memory.0.cmp(&has.0) {
                std::cmp::Ordering::Equal => return Ok(None),
                std::cmp::Ordering::Greater => {
                    let more = rackmem_types::Bytes(memory.0 - has.0);
                    quotas.check_more(rack, &reservation.request.project, reservation.request.class, more)?;
                    planner::grow(rack, *id, more)?
                }
                std::cmp::Ordering::Less => {
                    planner::shrink(rack, *id, rackmem_types::Bytes(has.0 - memory.0))?
                }
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
