//! A simulated agent: a brick, the time of tokio, and the API.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rackmem_api::agent::{
    Access, AgentApi, Attachment, AttachmentSet, AttachmentView, Console, DomainAttach, ElasticBounds,
    ElasticView, HostView, LogQuery, ResizePlan, ResizeRequest, SharedView, StopRequest, VmSpec, VmView,
    WatchQuery,
};
use rackmem_api::change::Change;
use rackmem_api::event::{self, Event, EventId};
use rackmem_api::events::{EventLog, Told};
use rackmem_api::operation::{Operation, OperationFilter, OperationId, WaitQuery};
use rackmem_api::problem::{Problem, ProblemType};
use rackmem_api::{AttachmentId, GroupName, VmName};
use rackmem_types::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::brick::{Brick, Command};
use crate::config::SimConfig;
use crate::random::Random;
use crate::{console, metrics};

/// Events that an agent remembers for readers that come back.
const EVENTS_KEPT: usize = 256;

/// A simulated agent. Clones are the same agent.
#[derive(Clone, Debug)]
pub struct SimAgent {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    brick: Mutex<Brick>,
    log: Arc<EventLog<Event>>,
    /// Somebody began an operation: there may be steps that are due earlier than the driver knows.
    begun: Notify,
    driven: AtomicBool,
    away: AtomicBool,
    requests: Mutex<Random>,
    epoch: Epoch,
    started_ms: u64,
}

/// Tokio's clock, as milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    instant: Instant,
    ms: u64,
}

impl Epoch {
    fn begin() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), ms: since.as_millis() as u64 }
    }

    fn now(&self) -> u64 {
        self.ms + self.instant.elapsed().as_millis() as u64
    }
}

/// What an agent keeps over a restart: all but its connections.
#[derive(Debug)]
pub struct Kept {
    brick: Brick,
    next_event: EventId,
    epoch: Epoch,
}

impl SimAgent {
    /// A new agent of an empty brick.
    pub fn new(config: SimConfig) -> Self {
        Self::start(Kept { brick: Brick::new(config), next_event: 1, epoch: Epoch::begin() })
    }

    /// An agent that goes on where another one was killed: what was accepted is finished.
    pub fn start(kept: Kept) -> Self {
        let Kept { mut brick, next_event, epoch } = kept;
        let now = epoch.now();
        brick.resume(now);
        let requests = Random::new(!brick.config.seed);
        let agent = Self {
            inner: Arc::new(Inner {
                log: Arc::new(EventLog::new(next_event, EVENTS_KEPT)),
                begun: Notify::new(),
                driven: AtomicBool::new(false),
                away: AtomicBool::new(false),
                requests: Mutex::new(requests),
                epoch,
                started_ms: now,
                brick: Mutex::new(brick),
            }),
        };
        agent.drive();
        agent
    }

    /// Kills the agent at once, in the middle of whatever it does. Its handles answer nothing any more.
    pub fn kill(&self) -> Kept {
        self.inner.away.store(true, Ordering::Release);
        self.inner.begun.notify_one();
        let brick = self.inner.lock().clone();
        Kept { brick, next_event: self.inner.log.last() + 1, epoch: self.inner.epoch }
    }

    /// Whether requests are refused as if the agent could not be reached.
    pub fn away_set(&self, away: bool) {
        self.inner.away.store(away, Ordering::Release);
        self.drive();
    }

    /// The guest's programs use so much from now on: what elastic machines follow.
    pub fn guest_uses(&self, name: &VmName, used: Bytes) -> Result<(), Problem> {
        self.with(|brick, now| brick.guest_uses(now, name, used))
    }

    /// Does something with the brick, with all steps done whose time has come, and publishes what happened.
    fn with<R>(&self, act: impl FnOnce(&mut Brick, u64) -> R) -> R {
        let mut brick = self.inner.lock();
        let now = self.inner.epoch.now();
        brick.settle(now);
        let result = act(&mut brick, now);
        // In the lock, so that events are numbered in the order in which they happened.
        for event in std::mem::take(&mut brick.happened) {
            self.inner.log.publish(|id| Event { id, ..event });
        }
        let waits = brick.next_due().is_some();
        drop(brick);
        if waits {
            self.drive();
        }
        result
    }

    /// Answers a request, unless it is one of those that fail.
    fn answer<R>(&self, act: impl FnOnce(&mut Brick, u64) -> Result<R, Problem>) -> Result<R, Problem> {
        let permille = self.inner.lock().config.failures.request_permille;
        let unlucky = lock(&self.inner.requests).happens(permille);
        if unlucky || self.inner.away.load(Ordering::Acquire) {
            let detail = "the simulated agent does not answer now: try again";
            return Err(Problem::new(ProblemType::Unavailable, detail).retry_after(1));
        }
        self.with(act)
    }

    fn accept(&self, change: Change, command: Command) -> Result<Operation, Problem> {
        self.answer(|brick, now| brick.accept(now, change, command))
    }

    /// Sees to it that steps are done when they are due. There is a task only while something is running.
    fn drive(&self) {
        if self.inner.driven.swap(true, Ordering::AcqRel) {
            self.inner.begun.notify_one();
            return;
        }
        let agent = self.clone();
        tokio::spawn(async move { agent.driver().await });
    }

    async fn driver(&self) {
        loop {
            let next = (!self.inner.away.load(Ordering::Acquire)).then(|| self.next_due()).flatten();
            let Some(due) = next else {
                self.inner.driven.store(false, Ordering::Release);
                // Something may have been begun since it was looked.
                let missed = self.next_due().is_some() && !self.inner.away.load(Ordering::Acquire);
                if !missed || self.inner.driven.swap(true, Ordering::AcqRel) {
                    return;
                }
                continue;
            };
            let wait = Duration::from_millis(due.saturating_sub(self.inner.epoch.now()));
            tokio::select! {
                () = tokio::time::sleep(wait) => {
                    if !self.inner.away.load(Ordering::Acquire) {
                        self.with(|_, _| ());
                    }
                }
                () = self.inner.begun.notified() => {}
            }
        }
    }

    fn next_due(&self) -> Option<u64> {
        self.inner.lock().next_due()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Brick> {
        lock(&self.brick)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in the simulation is a bug that a test shows; the other agents go on.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AgentApi for SimAgent {
    async fn host(&self) -> Result<HostView, Problem> {
        self.answer(|brick, now| Ok(brick.host_view(self.inner.started_ms, now)))
    }

    async fn vm_list(&self) -> Result<Vec<VmView>, Problem> {
        self.answer(|brick, now| Ok(brick.vms.values().map(|vm| brick.vm_view(vm, now)).collect()))
    }

    async fn vm_show(&self, name: VmName) -> Result<VmView, Problem> {
        self.answer(|brick, now| Ok(brick.vm_view(brick.vm(&name)?, now)))
    }

    async fn vm_create(&self, change: Change, spec: VmSpec) -> Result<Operation, Problem> {
        self.accept(change, Command::Create(spec))
    }

    async fn vm_delete(&self, change: Change, name: VmName) -> Result<Operation, Problem> {
        self.accept(change, Command::Delete(name))
    }

    async fn vm_start(&self, change: Change, name: VmName) -> Result<Operation, Problem> {
        self.accept(change, Command::Start(name))
    }

    async fn vm_stop(&self, change: Change, name: VmName, how: StopRequest) -> Result<Operation, Problem> {
        self.accept(change, Command::Stop(name, how))
    }

    async fn vm_pause(&self, change: Change, name: VmName) -> Result<Operation, Problem> {
        self.accept(change, Command::Pause(name))
    }

    async fn vm_resume(&self, change: Change, name: VmName) -> Result<Operation, Problem> {
        self.accept(change, Command::Resume(name))
    }

    async fn vm_resize_plan(&self, name: VmName, request: ResizeRequest) -> Result<ResizePlan, Problem> {
        self.answer(|brick, _| brick.resize_plan(&name, request))
    }

    async fn vm_resize(
        &self,
        change: Change,
        name: VmName,
        request: ResizeRequest,
    ) -> Result<Operation, Problem> {
        self.accept(change, Command::Resize(name, request))
    }

    async fn vm_elastic_show(&self, name: VmName) -> Result<Option<ElasticView>, Problem> {
        self.answer(|brick, _| Ok(brick.vm(&name)?.elastic.clone()))
    }

    async fn vm_elastic_set(
        &self,
        change: Change,
        name: VmName,
        bounds: Option<ElasticBounds>,
    ) -> Result<Operation, Problem> {
        self.accept(change, Command::Elastic(name, bounds))
    }

    async fn vm_console(&self, name: VmName) -> Result<Console, Problem> {
        self.answer(|brick, _| {
            let vm = console::of_running(brick.vm(&name)?)?;
            Ok(console::open(&vm.log))
        })
    }

    async fn vm_log(&self, name: VmName, query: LogQuery) -> Result<Vec<u8>, Problem> {
        self.answer(|brick, _| {
            let log = brick.vm(&name)?.log.as_bytes();
            Ok(log[log.len().saturating_sub(query.tail_bytes())..].to_vec())
        })
    }

    async fn vm_watch(
        &self,
        name: VmName,
        query: WatchQuery,
    ) -> Result<BoxStream<'static, Result<Access, Problem>>, Problem> {
        self.answer(|brick, _| console::watch(console::of_running(brick.vm(&name)?)?, query.address))
    }

    async fn domain_attach(
        &self,
        change: Change,
        domain: String,
        request: DomainAttach,
    ) -> Result<Operation, Problem> {
        self.accept(change, Command::DomainAttach(domain, request))
    }

    async fn domain_detach(&self, change: Change, name: VmName) -> Result<Operation, Problem> {
        self.accept(change, Command::DomainDetach(name))
    }

    async fn attachment_list(&self) -> Result<Vec<AttachmentView>, Problem> {
        self.answer(|brick, _| {
            let mut views: Vec<_> =
                brick.attachments.values().map(|one| brick.attachment_view(one)).collect();
            views.sort_by_key(|view| view.entry.start);
            Ok(views)
        })
    }

    async fn attachment_show(&self, id: AttachmentId) -> Result<AttachmentView, Problem> {
        self.answer(|brick, _| Ok(brick.attachment_view(brick.attachment(&id)?)))
    }

    async fn shared_show(&self, group: GroupName) -> Result<SharedView, Problem> {
        self.answer(|brick, _| SharedView::of(&group, brick.attachments.values().map(|one| &one.entry)))
    }

    async fn attachment_create(&self, change: Change, entry: Attachment) -> Result<Operation, Problem> {
        self.accept(change, Command::AttachmentCreate(entry))
    }

    async fn attachment_delete(&self, change: Change, id: AttachmentId) -> Result<Operation, Problem> {
        self.accept(change, Command::AttachmentDelete(id))
    }

    async fn vm_attachments_set(
        &self,
        change: Change,
        name: VmName,
        set: AttachmentSet,
    ) -> Result<Operation, Problem> {
        self.accept(change, Command::Attachments { name, from: Vec::new(), to: set.attachments })
    }

    async fn vm_attachment_add(
        &self,
        change: Change,
        name: VmName,
        id: AttachmentId,
    ) -> Result<Operation, Problem> {
        self.accept(change, Command::Attach(name, id))
    }

    async fn vm_attachment_remove(
        &self,
        change: Change,
        name: VmName,
        id: AttachmentId,
    ) -> Result<Operation, Problem> {
        self.accept(change, Command::Detach(name, id))
    }

    async fn operation_list(&self, filter: OperationFilter) -> Result<Vec<Operation>, Problem> {
        self.answer(|brick, _| Ok(brick.operations.list(&filter)))
    }

    async fn operation_show(&self, id: OperationId) -> Result<Operation, Problem> {
        self.answer(|brick, _| brick.operations.find(id).cloned())
    }

    async fn operation_wait(&self, id: OperationId, query: WaitQuery) -> Result<Operation, Problem> {
        let mut happening = self.inner.log.follow(None);
        let deadline = Instant::now() + Duration::from_secs(query.timeout.into());
        loop {
            let operation = self.operation_show(id).await?;
            if operation.state.is_final() {
                return Ok(operation);
            }
            if tokio::time::timeout_at(deadline, happening.next()).await.is_err() {
                return self.operation_show(id).await;
            }
        }
    }

    async fn operation_cancel(&self, change: Change, id: OperationId) -> Result<Operation, Problem> {
        self.answer(|brick, now| brick.cancel(now, &change, id))
    }

    async fn events(&self, after: Option<EventId>) -> Result<BoxStream<'static, Event>, Problem> {
        let now = self.answer(|_, now| Ok(now))?;
        let told = self.inner.log.follow(after).map(move |told| match told {
            Told::Event(event) => event,
            Told::Missed(id) => Event {
                id,
                at_ms: now,
                kind: event::MISSED.to_owned(),
                target: String::new(),
                detail: "events are no longer known: read everything again".to_owned(),
                operation: None,
            },
        });
        Ok(told.boxed())
    }

    async fn metrics(&self) -> Result<String, Problem> {
        self.answer(|brick, now| Ok(metrics::text(&brick.host_view(self.inner.started_ms, now))))
    }
}
