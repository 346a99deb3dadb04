//! The controller's API over the ledger.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rackmem_api::agent::{Access, Console, ElasticBounds, ElasticView, LogQuery, StopRequest, WatchQuery};
use rackmem_api::controller::{
    BrickNew, BrickView, ControllerApi, ControllerView, DrainRequest, MachineNew, MachineResize, MachineView,
    PlanView, RackFile, ReasonView, ReservationNew, ReservationResize, ReservationView, Topology, Who, kind,
};
use rackmem_api::events::Told;
use rackmem_api::operation::{OperationFilter, WaitQuery};
use rackmem_api::problem::ProblemType;
use rackmem_api::{Change, Event, EventId, Operation, OperationId, OperationState, Problem, VmName, event};
use rackmem_rack::{Event as RackEvent, Name, Quotas, RackError, Reservation, ReservationId, file, planner};
use tokio::sync::mpsc;

use crate::config::ControllerConfig;
use crate::error::{ControllerError, problem};
use crate::hands::{Hands, address};
use crate::job::{Entry, Job, Work};
use crate::ledger::{Ledger, State, now_ms};
use crate::repair::Repairs;
use crate::store::Store;
use crate::{compute, dispatch, metrics, views, watch};

/// An SDM controller. It works for as long as the runtime does that it was started in.
#[derive(Debug)]
pub struct Controller {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) hands: Arc<dyn Hands>,
    pub(crate) images: Option<compute::Images>,
    quotas: Arc<Quotas>,
    queue: mpsc::UnboundedSender<u64>,
    started_ms: u64,
}

impl Controller {
    /// Starts a controller: what is stored is read and checked, and what was under way goes on.
    pub async fn start(config: ControllerConfig, hands: Arc<dyn Hands>) -> Result<Self, ControllerError> {
        let store = Store::open(&config.state, config.closing).await?;
        // A new state directory begins above every controller that ever was, so that agents obey it.
        let stored = store.load(now_ms() / 1000).await?;
        let (changes, to_write) = mpsc::unbounded_channel();
        let ledger = Arc::new(Ledger::new(stored, changes, config.queue)?);
        tokio::spawn(store.run(to_write, config.dies_at));
        let quotas = Arc::new(config.quotas);
        let (queue, work) = mpsc::unbounded_channel();
        for (seq, entry) in &ledger.lock().operations {
            if !entry.operation.state.is_final() {
                // The receiver is in this very function.
                let _ = queue.send(*seq);
            }
        }
        let dispatcher =
            dispatch::run(Arc::clone(&ledger), Arc::clone(&hands), Arc::clone(&quotas), config.workers, work);
        tokio::spawn(dispatcher);
        tokio::spawn(watch::expire(Arc::clone(&ledger)));
        let repairs = Repairs::new(queue.clone());
        tokio::spawn(watch::look(Arc::clone(&ledger), Arc::clone(&hands), repairs, config.watch_every));
        tokio::spawn(compute::watch::look(Arc::clone(&ledger), Arc::clone(&hands), config.watch_every));
        Ok(Self { ledger, hands, images: config.images, quotas, queue, started_ms: now_ms() })
    }

    /// Registers at once what these events say; nothing if one of them cannot be.
    async fn register(
        &self,
        change: &Change,
        kind: &str,
        target: String,
        events: Vec<RackEvent>,
    ) -> Result<Operation, Problem> {
        let begin = |state: &mut State| {
            state.apply_all(&events).map_err(|error| problem(&error))?;
            Ok((target, Job::new(Work::Register(events.clone()), None), OperationState::Done))
        };
        self.ledger.accept(change, kind, begin).await.map(|(operation, _)| operation)
    }

    /// Accepts work and hands it to the workers.
    pub(crate) async fn begin(
        &self,
        change: &Change,
        kind: &str,
        begin: impl FnOnce(&mut State) -> Result<(String, Job), Problem>,
    ) -> Result<Operation, Problem> {
        let begin = |state: &mut State| {
            self.ledger.room(state, &change.by)?;
            let (target, job) = begin(state)?;
            Ok((target, job, OperationState::Running))
        };
        let (operation, seq) = self.ledger.accept(change, kind, begin).await?;
        if let Some(seq) = seq {
            // The dispatcher lives as long as this does.
            let _ = self.queue.send(seq);
        }
        Ok(operation)
    }

    async fn of_reservation(
        &self,
        change: &Change,
        kind: &str,
        who: &Who,
        id: u64,
        work: impl FnOnce(ReservationId) -> Work,
    ) -> Result<Operation, Problem> {
        let id = ReservationId(id);
        self.begin(change, kind, |state| {
            let project = find(state, who, id)?.request.project.clone();
            if let Some(owner) = state.machines.owner(id) {
                let detail = format!(
                    "reservation {id} belongs to the virtual machine '{owner}': change or delete that"
                );
                return Err(Problem::new(ProblemType::InUse, detail));
            }
            Ok((id.to_string(), Job::new(work(id), Some(project))))
        })
        .await
    }
}

/// The reservation of that number. What belongs to other projects is not there; what was accepted and waits for its turn will be.
fn find<'a>(state: &'a State, who: &Who, id: ReservationId) -> Result<&'a Reservation, Problem> {
    match state.rack.reservation(id) {
        Ok(reservation) if who.sees(&reservation.request.project) => Ok(reservation),
        Ok(_) => Err(problem(&RackError::UnknownReservation(id))),
        Err(error) => Err(match state.awaited(id).filter(|entry| sees(who, entry)) {
            Some(Entry { operation, .. }) => {
                let detail = format!(
                    "reservation {id} is not decided yet: wait for the operation {}, or cancel it",
                    operation.id
                );
                Problem::new(ProblemType::Busy, detail)
            }
            None => problem(&error),
        }),
    }
}

/// Believes that a brick is gone for good.
fn lose(state: &mut State, brick: &Name) -> Result<(), Problem> {
    if state.rack.brick(brick).map_err(|error| problem(&error))?.is_reachable() {
        let detail = format!("{brick} answers, or did a moment ago, so it is not lost: drain it");
        return Err(Problem::new(ProblemType::WrongState, detail));
    }
    let event = RackEvent::PowerSeen { brick: brick.clone(), on: false };
    state.apply(event, None).map_err(|error| problem(&error))
}

/// Why an operation cannot be cancelled whose way leads only on.
fn carried_through(Operation { id, kind, target, .. }: &Operation) -> Problem {
    let detail = format!(
        "{kind} of '{target}' cannot be cancelled: what it has begun is carried through; see 'rackmem operation wait {id}'"
    );
    Problem::new(ProblemType::WrongState, detail)
}

fn sees(who: &Who, entry: &Entry) -> bool {
    if !who.looks() {
        return entry.operation.by == who.name;
    }
    who.project.is_none() || entry.job.project.as_deref().is_some_and(|project| who.sees(project))
}

fn name(text: &str) -> Result<Name, Problem> {
    text.parse().map_err(|_| Problem::not_found("brick", text))
}

impl ControllerApi for Controller {
    async fn controller(&self) -> Result<ControllerView, Problem> {
        let state = self.ledger.lock();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(ControllerView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.ledger.reign,
            changes: state.rack.generation().0,
            bricks: count(state.rack.bricks().count()),
            reservations: count(state.rack.reservations().count()),
            operations: count(state.running),
            watts: state.rack.watts(),
            started_ms: self.started_ms,
            now_ms: now_ms(),
        })
    }

    async fn topology(&self, who: Who) -> Result<Topology, Problem> {
        Ok(views::topology(&self.ledger.lock().rack, &who))
    }

    async fn brick_list(&self) -> Result<Vec<BrickView>, Problem> {
        Ok(self.ledger.lock().rack.bricks().map(views::brick).collect())
    }

    async fn brick_show(&self, text: String) -> Result<BrickView, Problem> {
        let name = name(&text)?;
        self.ledger.lock().rack.brick(&name).map(views::brick).map_err(|error| problem(&error))
    }

    async fn brick_register(&self, change: Change, brick: BrickNew) -> Result<Operation, Problem> {
        let target = brick.name.clone();
        let events = views::registration(brick).map_err(|error| problem(&error))?;
        events
            .iter()
            .try_for_each(address::judge)
            .map_err(|error| Problem::new(ProblemType::Invalid, error))?;
        self.register(&change, kind::BRICK_REGISTER, target, events).await
    }

    async fn rack_register(&self, change: Change, file: RackFile) -> Result<Operation, Problem> {
        let events = file::read_judged(&file.file, &address::judge)
            .map_err(|mistake| Problem::new(ProblemType::Invalid, mistake.to_string()))?;
        let racks = events.iter().filter_map(|event| match event {
            RackEvent::RackAdded(name) => Some(name.to_string()),
            _ => None,
        });
        let target = racks.collect::<Vec<_>>().join(",");
        self.register(&change, kind::RACK_REGISTER, target, events).await
    }

    async fn brick_drain(
        &self,
        change: Change,
        text: String,
        request: DrainRequest,
    ) -> Result<Operation, Problem> {
        let brick = name(&text)?;
        let event = RackEvent::Draining { brick: brick.clone(), draining: request.draining };
        if !request.draining && request.lost {
            let detail = "a brick that is lost takes nothing new: leave out one of the two";
            return Err(Problem::new(ProblemType::Invalid, detail));
        }
        if !request.draining {
            return self.register(&change, kind::BRICK_DRAIN, text, vec![event]).await;
        }
        self.begin(&change, kind::BRICK_DRAIN, |state| {
            if request.lost {
                lose(state, &brick)?;
            }
            state.apply(event, None).map_err(|error| problem(&error))?;
            Ok((text, Job::new(Work::Drain(brick), None)))
        })
        .await
    }

    async fn brick_remove(&self, change: Change, text: String) -> Result<Operation, Problem> {
        let event = RackEvent::Removed(name(&text)?);
        self.register(&change, kind::BRICK_REMOVE, text, vec![event]).await
    }

    async fn reservation_list(&self, who: Who) -> Result<Vec<ReservationView>, Problem> {
        let state = self.ledger.lock();
        let all = state.rack.reservations().filter(|reservation| who.sees(&reservation.request.project));
        Ok(all.map(|reservation| views::reservation(&state.rack, reservation)).collect())
    }

    async fn reservation_show(&self, who: Who, id: u64) -> Result<ReservationView, Problem> {
        let state = self.ledger.lock();
        let found = find(&state, &who, ReservationId(id))?;
        Ok(views::reservation(&state.rack, found))
    }

    async fn reservation_preview(&self, who: Who, new: ReservationNew) -> Result<PlanView, Problem> {
        let project = who.project(new.project.as_deref())?;
        let request = views::request(&new, project, now_ms()).map_err(|error| problem(&error))?;
        let state = self.ledger.lock();
        let planned = self.quotas.check(&state.rack, &request).and_then(|()| {
            planner::reserve(&state.rack, ReservationId(rackmem_rack::RESERVATION_MAX), &request)
        });
        planned.map(|plan| views::preview(&plan)).map_err(|error| problem(&error))
    }

    async fn reservation_create(
        &self,
        change: Change,
        who: Who,
        new: ReservationNew,
    ) -> Result<Operation, Problem> {
        new.check()?;
        let project = who.project(new.project.as_deref())?;
        let request = views::request(&new, project.clone(), now_ms()).map_err(|error| problem(&error))?;
        self.begin(&change, kind::RESERVATION_CREATE, |state| {
            if let Some(compute) = &request.compute {
                state.rack.brick(compute).map_err(|error| problem(&error))?;
            }
            let id = state.reservation_new();
            let work = Work::Reserve { id, request: Box::new(request), apply: new.apply };
            Ok((id.to_string(), Job::new(work, Some(project))))
        })
        .await
    }

    async fn reservation_apply(&self, change: Change, who: Who, id: u64) -> Result<Operation, Problem> {
        self.of_reservation(&change, kind::RESERVATION_APPLY, &who, id, Work::Apply).await
    }

    async fn reservation_resize(
        &self,
        change: Change,
        who: Who,
        id: u64,
        request: ReservationResize,
    ) -> Result<Operation, Problem> {
        let memory = request.memory;
        self.of_reservation(&change, kind::RESERVATION_RESIZE, &who, id, |id| Work::Resize { id, memory })
            .await
    }

    async fn reservation_release(&self, change: Change, who: Who, id: u64) -> Result<Operation, Problem> {
        self.of_reservation(&change, kind::RESERVATION_RELEASE, &who, id, Work::Release).await
    }

    async fn vm_list(&self, who: Who) -> Result<Vec<MachineView>, Problem> {
        Ok(self.machine_list(&who))
    }

    async fn vm_show(&self, who: Who, name: VmName) -> Result<MachineView, Problem> {
        self.machine_show(&who, &name).await
    }

    async fn vm_create(&self, change: Change, who: Who, new: MachineNew) -> Result<Operation, Problem> {
        self.machine_create(&change, &who, new).await
    }

    async fn vm_start(&self, change: Change, who: Who, name: VmName) -> Result<Operation, Problem> {
        self.machine_start(&change, &who, &name).await
    }

    async fn vm_stop(
        &self,
        change: Change,
        who: Who,
        name: VmName,
        how: StopRequest,
    ) -> Result<Operation, Problem> {
        self.machine_stop(&change, &who, &name, how).await
    }

    async fn vm_pause(&self, change: Change, who: Who, name: VmName) -> Result<Operation, Problem> {
        self.machine_pause(&change, &who, &name).await
    }

    async fn vm_resume(&self, change: Change, who: Who, name: VmName) -> Result<Operation, Problem> {
        self.machine_resume(&change, &who, &name).await
    }

    async fn vm_resize(
        &self,
        change: Change,
        who: Who,
        name: VmName,
        request: MachineResize,
    ) -> Result<Operation, Problem> {
        self.machine_resize(&change, &who, &name, request.memory).await
    }

    async fn vm_fit(
        &self,
        change: Change,
        who: Who,
        name: VmName,
        request: MachineResize,
    ) -> Result<Operation, Problem> {
        self.machine_fit(&change, &who, &name, request.memory).await
    }

    async fn vm_elastic_set(
        &self,
        change: Change,
        who: Who,
        name: VmName,
        bounds: Option<ElasticBounds>,
    ) -> Result<Operation, Problem> {
        self.machine_elastic_set(&change, &who, &name, bounds).await
    }

    async fn vm_elastic_show(&self, who: Who, name: VmName) -> Result<Option<ElasticView>, Problem> {
        self.machine_elastic_show(&who, &name).await
    }

    async fn vm_console(&self, who: Who, name: VmName) -> Result<Console, Problem> {
        self.machine_console(&who, &name).await
    }

    async fn vm_log(&self, who: Who, name: VmName, query: LogQuery) -> Result<Vec<u8>, Problem> {
        self.machine_log(&who, &name, query).await
    }

    async fn vm_watch(
        &self,
        who: Who,
        name: VmName,
        query: WatchQuery,
    ) -> Result<BoxStream<'static, Result<Access, Problem>>, Problem> {
        self.machine_watch(&who, &name, query).await
    }

    async fn vm_delete(&self, change: Change, who: Who, name: VmName) -> Result<Operation, Problem> {
        self.machine_delete(&change, &who, &name).await
    }

    async fn why(&self, who: Who, new: ReservationNew) -> Result<Vec<ReasonView>, Problem> {
        let project = who.project(new.project.as_deref())?;
        let request = views::request(&new, project, now_ms()).map_err(|error| problem(&error))?;
        let reasons = planner::why(&self.ledger.lock().rack, &request).map_err(|error| problem(&error))?;
        Ok(reasons.into_iter().map(views::reason).collect())
    }

    async fn operation_list(&self, who: Who, filter: OperationFilter) -> Result<Vec<Operation>, Problem> {
        let state = self.ledger.lock();
        let newest = state.operations.values().rev().filter(|entry| sees(&who, entry));
        let matching = newest.map(|entry| &entry.operation).filter(|operation| filter.matches(operation));
        Ok(matching.take(filter.limit()).cloned().collect())
    }

    async fn operation_show(&self, who: Who, id: OperationId) -> Result<Operation, Problem> {
        let state = self.ledger.lock();
        let (_, entry) = state.find(id)?;
        if sees(&who, entry) { Ok(entry.operation.clone()) } else { Err(Problem::not_found("operation", id)) }
    }

    async fn operation_wait(
        &self,
        who: Who,
        id: OperationId,
        query: WaitQuery,
    ) -> Result<Operation, Problem> {
        let end = {
            let mut state = self.ledger.lock();
            let (seq, entry) = state.find(id)?;
            if !sees(&who, entry) {
                return Err(Problem::not_found("operation", id));
            }
            if entry.operation.state.is_final() {
                return Ok(entry.operation.clone());
            }
            state.end_of(seq)
        };
        // Whether it ended or the time did, the operation is told as it is.
        let _ = tokio::time::timeout(Duration::from_secs(query.timeout.into()), end).await;
        self.operation_show(who, id).await
    }

    async fn operation_cancel(
        &self,
        change: Change,
        who: Who,
        id: OperationId,
    ) -> Result<Operation, Problem> {
        let (operation, kept) = {
            let mut state = self.ledger.lock();
            self.ledger.reign.admit(change.generation)?;
            let (seq, entry) = state.find(id)?;
            if !sees(&who, entry) {
                return Err(Problem::not_found("operation", id));
            }
            if !entry.operation.state.is_final() {
                if !entry.job.can_be_cancelled(&state.rack) {
                    return Err(carried_through(&entry.operation));
                }
                self.ledger.cancel(&mut state, seq, &change.by);
            }
            let operation = state.find(id)?.1.operation.clone();
            (operation, self.ledger.keep(state))
        };
        kept.wait().await?;
        Ok(operation)
    }

    async fn operation_why(&self, who: Who, id: OperationId) -> Result<Vec<ReasonView>, Problem> {
        let state = self.ledger.lock();
        let (_, entry) = state.find(id)?;
        if !sees(&who, entry) {
            return Err(Problem::not_found("operation", id));
        }
        let work = &entry.job.work;
        let request = work.request(&state.rack).ok_or_else(|| {
            let detail = match work {
                Work::Drain(brick) => {
                    format!("no memory that could be moved lies on {brick}, so there is nothing to explain")
                }
                _ => format!("operation {id} reserves nothing, so there is nothing to explain"),
            };
            Problem::new(ProblemType::WrongState, detail)
        })?;
        match planner::why(&state.rack, &request) {
            Ok(reasons) => Ok(reasons.into_iter().map(views::reason).collect()),
            // The operation's own error says what is wrong with the request; no brick means anything for it.
            Err(RackError::Request(_)) => Ok(Vec::new()),
            Err(error) => Err(problem(&error)),
        }
    }

    async fn events(&self, who: Who, after: Option<EventId>) -> Result<BoxStream<'static, Event>, Problem> {
        let told = self.ledger.news.follow(after).filter_map(move |told| {
            std::future::ready(match told {
                Told::Event(news) => news.is_for(&who).then_some(news.event),
                Told::Missed(id) => Some(Event {
                    id,
                    at_ms: now_ms(),
                    kind: event::MISSED.to_owned(),
                    target: String::new(),
                    detail: "some events are no longer known: read everything again".to_owned(),
                    operation: None,
                }),
            })
        });
        Ok(told.boxed())
    }

    async fn metrics(&self) -> Result<String, Problem> {
        let text = metrics::text(&self.ledger.lock(), &self.ledger.counts);
        text.map_err(|error| Problem::new(ProblemType::Internal, error.to_string()))
    }
}
