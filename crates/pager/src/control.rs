//! Answers the command line: statistics, the limit, what far memory there is, detach and watch.

use std::fs::File;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use rackmem_control::{
    Access, DetachReport, Handler, Latency, LendReport, Lending, LentSegment, ServerStats, TargetStats,
};
use rackmem_far::{FarMemory, GivenSegment};
use rackmem_types::Bytes;

use crate::vacate::vacate;
use crate::watch::Watched;
use crate::{LIMIT_MIN, PagerError, Shared, detach, spawn, tell};

/// How often the window of the latency histogram moves on, and over how many of these it reaches.
const WINDOW: Duration = Duration::from_secs(10);
/// How often watched accesses are looked for.
const LOOK: Duration = Duration::from_millis(5);
/// A watch whose client has left ends within this, also on a busy machine.
const LEAVE: Duration = Duration::from_millis(500);
/// How long a question may take to be handed over.
const LINE: usize = 16;

type Answer<T> = SyncSender<T>;

/// A question to the pager. The socket's threads outlive the scope of the pager's own, so questions travel.
enum Question {
    Stats(Answer<TargetStats>),
    Limit(Bytes, Answer<Result<(), String>>),
    Lend(Lending, Answer<Result<LendReport, String>>),
    Detach(Answer<Result<DetachReport, String>>),
    WatchBegin(u64, Answer<Result<(), String>>),
    WatchTake(Answer<Vec<Access>>),
    WatchEnd,
}

/// What the statistics need besides the core.
pub(crate) struct Control {
    pid: u32,
    command: String,
    far: FarMemory,
    begun: Instant,
    pause: Duration,
}

impl Control {
    pub(crate) fn new(pid: u32, command: String, far: FarMemory, pause: Duration) -> Self {
        Self { pid, command, far, begun: Instant::now(), pause }
    }

    /// Binds the socket, answers from a thread of its own, and reports that far memory is in force.
    pub(crate) fn serve<'scope>(
        mut self,
        scope: &'scope Scope<'scope, '_>,
        shared: &'scope Shared,
        report: &mut Option<File>,
        pause: Duration,
    ) -> Result<(), PagerError> {
        if let Ok(status) = rackmem_inject::process_status(self.pid) {
            self.command = status.name; // after the exec, it is the program's
        }
        let (sender, questions) = sync_channel(LINE);
        let server = rackmem_control::Server::bind(self.pid)?;
        server.serve(Arc::new(Desk { questions: sender }))?;
        spawn(scope, "control", move || {
            self.answer(scope, shared, &questions);
            drop(server);
        })?;
        tell(report, &format!("{{\"attached\":true,\"pause_us\":{}}}", pause.as_micros()));
        *report = None;
        Ok(())
    }

    fn answer<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        shared: &'scope Shared,
        questions: &Receiver<Question>,
    ) {
        let mut window = Instant::now();
        while !shared.stop.load(Relaxed) {
            let question = questions.recv_timeout(Duration::from_millis(100));
            if window.elapsed() > WINDOW {
                window = Instant::now();
                let mut core = shared.lock();
                core.latency_before = std::mem::replace(&mut core.latency, crate::core::histogram());
            }
            // Who asked may have gone; then nobody takes the answer. What takes long has a thread of its own.
            match question {
                Ok(Question::Stats(answer)) => drop(answer.send(self.stats(shared))),
                Ok(Question::Limit(limit, answer)) => {
                    scope.spawn(move || drop(answer.send(limit_set(shared, limit))));
                }
                Ok(Question::Lend(lending, answer)) => {
                    let far = self.far.clone();
                    scope.spawn(move || drop(answer.send(lend(shared, &far, lending))));
                }
                Ok(Question::Detach(answer)) => {
                    scope.spawn(move || drop(answer.send(detach::detach(shared))));
                }
                Ok(Question::WatchBegin(address, answer)) => drop(answer.send(watch_begin(shared, address))),
                Ok(Question::WatchTake(answer)) => {
                    drop(answer.send(shared.lock().watched.as_mut().map(Watched::take).unwrap_or_default()));
                }
                Ok(Question::WatchEnd) => shared.lock().watched = None,
                Err(_) => {}
            }
        }
    }

    fn stats(&self, shared: &Shared) -> TargetStats {
        let servers = self.far.servers();
        let core = shared.lock();
        let mut latency = core.latency_before.clone();
        // The bounds are the same, so adding cannot fail.
        let _ = latency.add(&core.latency);
        let us = |ns: u64| ns as f64 / 1000.0;
        let counters = core.counters;
        TargetStats {
            pid: self.pid,
            pager_pid: std::process::id(),
            command: self.command.clone(),
            processes: core.spaces().count() as u32,
            uptime_us: self.begun.elapsed().as_micros() as u64,
            attach_pause_us: self.pause.as_micros() as u64,
            managed: Bytes::from_pages(core.local() + core.far),
            local: Bytes::from_pages(core.local()),
            far: Bytes::from_pages(core.far),
            limit: Bytes::from_pages(core.limit),
            faults: counters.faults,
            far_faults: counters.far_faults,
            fault_latency: Latency {
                p50_us: us(latency.value_at_quantile(0.5)),
                p99_us: us(latency.value_at_quantile(0.99)),
                max_us: us(latency.max()),
            },
            stall_us: counters.stall_us,
            pages_fetched: counters.fetched,
            pages_prefetched: counters.prefetched,
            prefetch_hits: core.prefetcher.hits().min(counters.prefetched),
            pages_evicted: counters.evicted,
            pages_unchanged: counters.unchanged,
            pages_zero: counters.zero,
            pages_reclaimed: counters.reclaimed,
            pages_lost: counters.lost,
            servers: servers
                .into_iter()
                .map(|server| ServerStats {
                    address: server.address,
                    reserved: Bytes::from_pages(server.reserved_pages),
                    used: Bytes::from_pages(server.used_pages),
                    state: server.state.word().to_owned(),
                })
                .collect(),
            warnings: core.warnings.clone(),
        }
    }
}

fn limit_set(shared: &Shared, limit: Bytes) -> Result<(), String> {
    if limit < LIMIT_MIN {
        return Err(PagerError::LimitTooSmall(limit).to_string());
    }
    {
        let mut core = shared.lock();
        core.limit_set(limit.pages());
    }
    shared.evict.notify_one();
    shared.wake_server();
    // Growing is immediate; shrinking takes as long as the pages take to leave.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let core = shared.lock();
        if core.local() <= core.limit || shared.stop.load(Relaxed) {
            return Ok(());
        }
        let over = Bytes::from_pages(core.local() - core.limit);
        drop(core);
        if Instant::now() > deadline {
            return Err(format!("the limit is set, but {over} more than it could not leave so far"));
        }
        shared.evict.notify_one();
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Who waits for far memory is told at once that there is some. What lies on what goes is moved first.
fn lend(shared: &Shared, far: &FarMemory, lending: Lending) -> Result<LendReport, String> {
    let Ok(_alone) = shared.lending.try_lock() else {
        return Err("another change of what far memory may be used is under way".to_owned());
    };
    let before = far.lending();
    let surplus = {
        let _growing = shared.growing.lock().unwrap_or_else(PoisonError::into_inner);
        far.lend(far_lending(lending)).map_err(|error| error.to_string())?
    };
    shared.lock().far_full = false;
    shared.evict.notify_one();
    if surplus.is_empty() {
        return Ok(LendReport::InForce);
    }
    if let Err(sentence) = vacate(shared, &surplus) {
        // What has been moved meanwhile stays where it is.
        if let Err(error) = far.lend(before) {
            tracing::warn!("what far memory may be used is not as it was: {error}");
        }
        return Ok(LendReport::InUse(sentence));
    }
    let settled = far.shed(&surplus);
    shared.lock().estate.extents_shed(&far.extents());
    if settled {
        far.give_back(&surplus);
    } else {
        tracing::warn!("what was emptied is not given back: a memory server owes answers for it");
    }
    Ok(LendReport::InForce)
}

fn far_lending(lending: Lending) -> rackmem_far::Lending {
    let Lending { servers, segments, far_max } = lending;
    let given = |lent: LentSegment| {
        let LentSegment { server, segment, token, first, pages } = lent;
        GivenSegment { server, segment, owner: token, first, pages }
    };
    rackmem_far::Lending {
        servers,
        given: segments.into_iter().map(given).collect(),
        // More than all slots there are is no limit.
        capacity_pages: far_max.and_then(|far_max| u32::try_from(far_max.pages()).ok()),
    }
}

const WATCHED: &str = "a page of this target is being watched already";

fn watch_begin(shared: &Shared, address: u64) -> Result<(), String> {
    let mut core = shared.lock();
    if core.watched.is_some() {
        return Err(WATCHED.to_owned());
    }
    let found =
        core.spaces().find(|(_, space)| space.regions.containing(address).is_some()).map(|(id, _)| id);
    let Some(id) = found else {
        return Err(format!(
            "address {address:#x} is not in memory that is managed: it must be heap or private anonymous memory of the target (see /proc/PID/maps)"
        ));
    };
    core.watched = Some(Watched::new(id, address));
    drop(core);
    shared.evict.notify_one();
    Ok(())
}

/// The pager's end of the control socket.
struct Desk {
    questions: SyncSender<Question>,
}

impl Desk {
    fn ask<T>(&self, question: impl FnOnce(Answer<T>) -> Question) -> Option<T> {
        let (answer, result) = sync_channel(1);
        self.questions.send(question(answer)).ok()?;
        result.recv().ok()
    }

    /// Begins a watch; one whose client has just left ends at its next look.
    fn watch_begin(&self, address: u64) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            match self.ask(|answer| Question::WatchBegin(address, answer)) {
                Some(Err(refused)) if refused == WATCHED && begin.elapsed() < LEAVE => {
                    std::thread::sleep(LOOK);
                }
                answered => return answered.unwrap_or_else(|| Err(GONE.to_owned())),
            }
        }
    }
}

const GONE: &str = "the pager is ending";

impl Handler for Desk {
    fn stats(&self) -> TargetStats {
        self.ask(Question::Stats).unwrap_or_default()
    }

    fn limit_set(&self, limit: Bytes) -> Result<(), String> {
        self.ask(|answer| Question::Limit(limit, answer)).unwrap_or_else(|| Err(GONE.to_owned()))
    }

    fn lend(&self, lending: Lending) -> Result<LendReport, String> {
        self.ask(|answer| Question::Lend(lending, answer)).unwrap_or_else(|| Err(GONE.to_owned()))
    }

    fn detach(&self) -> Result<DetachReport, String> {
        self.ask(Question::Detach).unwrap_or_else(|| Err(GONE.to_owned()))
    }

    fn watch(&self, address: u64, report: &mut dyn FnMut(Option<Access>) -> bool) -> Result<(), String> {
        self.watch_begin(address)?;
        let mut goes_on = true;
        while goes_on {
            let Some(accesses) = self.ask(Question::WatchTake) else { break };
            goes_on = report(None) && accesses.into_iter().all(|access| report(Some(access)));
            std::thread::sleep(LOOK);
        }
        let _ = self.questions.send(Question::WatchEnd);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::core::Core;
    use crate::standby_pages;

    #[test]
    fn the_standby_list_follows_the_limit() {
        let (small, large) = (1 << 12, 1 << 16);
        let mut core = Core::new(large, standby_pages(large), None, true).unwrap();
        let first = core.standby_target;
        assert_eq!(first, 1 << 12, "a sixteenth of the limit");
        core.limit_set(small);
        assert_eq!((core.limit, core.standby_target), (small, 1 << 8));
        core.limit_set(large);
        assert_eq!((core.limit, core.standby_target), (large, first));
        core.limit_set(16 * large);
        assert_eq!(core.standby_target, first, "no more than it has places for");
    }
}
