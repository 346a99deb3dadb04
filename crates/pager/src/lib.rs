//! The pager: gives one process, and all that it forks, memory that lies on memory servers.
//!
//! [`run`] enters the process (`rackmem_inject`), connects to the memory servers (`rackmem_far`) and stays until the
//! process and its descendants are gone or are detached. Three threads share one lock:
//!
//! - the **fault thread** (`serve.rs`) answers page faults and never waits for anything else;
//! - the **evictor** (`evict.rs`) keeps room below the local limit, ahead of need;
//! - the **keeper** (`keeper.rs`) finds new mappings and descendants.
//!
//! `core.rs` holds the page states and says why this is right; `events.rs` what fork, mremap, munmap and madvise do to
//! them. The promise everything serves: a fault is answered with the last version written, or it waits, or it is SIGBUS.

mod control;
mod core;
mod detach;
mod enter;
mod entry;
mod error;
mod estate;
mod events;
mod evict;
mod extract;
mod install;
mod journal;
mod keeper;
mod kernel;
mod late;
mod order;
mod poll;
mod probes;
mod procfs;
mod ranges;
mod register;
mod serve;
#[cfg(test)]
mod sim;
mod space;
mod standby;
mod sync;
mod table;
mod takeover;
mod tracing_file;
mod transfer;
mod trustee;
mod vacate;
mod verdict;
mod watch;

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rackmem_far::{FarConfig, FarError, FarMemory};
use rackmem_inject::{Held, Stopped, process_status, start};
use rackmem_policy::PageRef;
use rackmem_types::Bytes;

pub use error::{EstateError, PagerError};
pub use probes::Probes;
pub use takeover::is_orphan;
pub use trustee::Trustee;

use crate::control::Control;
use crate::core::Core;
use crate::evict::Evictor;
use crate::journal::Journal;
use crate::keeper::Keeper;
use crate::poll::FaultThread;
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::table::SpaceId;
use crate::takeover::Inheritance;
use crate::tracing_file::TraceFile;

/// What a pager is asked to do.
#[derive(Debug)]
pub struct PagerConfig {
    /// The process.
    pub pid: u32,
    /// The process waits for a byte before it replaces itself by the program: enter it at the exec.
    pub exec: bool,
    /// Go on where a pager was killed.
    pub take_over: bool,
    /// Name of the program, for the trace.
    pub name: String,
    /// How much of the managed memory may be resident.
    pub limit: Bytes,
    /// Where the rest is.
    pub far: FarConfig,
    /// Where to write the trace of faults and evictions.
    pub trace: Option<PathBuf>,
    /// Kernel features to do without.
    pub without: Vec<String>,
    /// What keeps this process's descriptors when it is killed. Without one, a child that was forked in the microsecond before that
    /// is not served.
    pub trustee: Option<Trustee>,
    /// Where to report, in JSON lines, that the process is held and that far memory is in force.
    pub ready: Option<OwnedFd>,
}

/// The smallest local limit: a few batches, below which a program would do nothing but wait.
pub const LIMIT_MIN: Bytes = Bytes(4 << 20);

/// Priority of the pager's threads: before ordinary programs, behind whatever an administrator put first.
const NICE: i32 = -10;

/// What the threads of a pager share.
pub(crate) struct Shared {
    core: Mutex<Core>,
    /// The evictor sleeps on this.
    evict: Condvar,
    /// A batch has been recorded.
    batch_done: Condvar,
    /// Descriptors that whoever takes over needs: the page table, the standby list and the estate. Every resident thread
    /// holds them.
    heirlooms: Vec<OwnedFd>,
    /// Wakes the fault thread.
    wake: OwnedFd,
    /// The fault thread waits for the lock.
    urgent: AtomicBool,
    /// Spaces that the fault thread does not watch yet.
    newcomers: Mutex<Vec<SpaceId>>,
    stop: AtomicBool,
    detaching: AtomicBool,
    /// Held by who changes what far memory may be used.
    lending: std::sync::Mutex<()>,
    /// Slots have been given to pages, and their stores are not on the way yet.
    sending: AtomicBool,
    /// Held while more is reserved, until its slots are known.
    growing: Mutex<()>,
    far_asked: Mutex<Instant>,
}

impl Shared {
    fn new(core: Core) -> std::io::Result<Self> {
        let mut heirlooms = core.estate.heirlooms()?;
        heirlooms.push(core.table.fd().try_clone_to_owned()?);
        heirlooms.push(core.standby.fd().try_clone_to_owned()?);
        Ok(Self {
            core: Mutex::new(core),
            evict: Condvar::new(),
            batch_done: Condvar::new(),
            heirlooms,
            wake: rustix::event::eventfd(
                0,
                rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK,
            )?,
            urgent: AtomicBool::new(false),
            newcomers: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
            detaching: AtomicBool::new(false),
            lending: std::sync::Mutex::default(),
            sending: AtomicBool::new(false),
            growing: Mutex::new(()),
            far_asked: Mutex::new(Instant::now()),
        })
    }

    /// The lock. A thread that panicked under it has ended the process already (`panic = "abort"`).
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, for the fault thread: others hold it for microseconds, and to sleep and be woken takes longer.
    #[cfg(not(test))]
    fn lock_soon(&self) -> MutexGuard<'_, Core> {
        /// About as long as the longest hold there is.
        const SPINS_MAX: u32 = 2000;
        self.urgent.store(true, Relaxed);
        let mut soon = None;
        for _ in 0..SPINS_MAX {
            soon = self.core.try_lock().ok();
            if soon.is_some() {
                break;
            }
            std::hint::spin_loop();
        }
        let core = soon.unwrap_or_else(|| self.lock());
        self.urgent.store(false, Relaxed);
        core
    }

    #[cfg(test)]
    fn lock_soon(&self) -> MutexGuard<'_, Core> {
        self.lock()
    }

    /// Lets the fault thread have the lock that was just given up, if it waits for it.
    fn give_way(&self) {
        /// The fault thread may be about to sleep.
        const SPINS_MAX: u32 = 200;
        for _ in 0..SPINS_MAX {
            if !self.urgent.load(Relaxed) {
                return;
            }
            std::hint::spin_loop();
        }
    }

    fn wake_server(&self) {
        // An eventfd only refuses when its counter is full, and then it is readable anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Whether it is time to ask full memory servers again.
    fn far_retry(&self) -> bool {
        const PATIENCE: Duration = Duration::from_secs(1);
        let mut asked = self.far_asked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = asked.elapsed() >= PATIENCE;
        if due {
            *asked = Instant::now();
        }
        due
    }
}

/// Gives a process far memory until it and its descendants are gone, or are detached.
pub fn run(config: PagerConfig) -> Result<(), PagerError> {
    if config.limit < LIMIT_MIN {
        return Err(PagerError::LimitTooSmall(config.limit));
    }
    // A fault is on the program's critical path, as one of the kernel's own would be. Refused without privilege.
    let _ = rustix::process::setpriority_process(None, NICE);
    let begun = Instant::now();
    let mut probes = Probes::ask(&config.without)?;
    let command = process_status(config.pid).map(|status| status.name).unwrap_or_default();
    let trace = config.trace.as_deref().map(|path| TraceFile::create(path, &config.name)).transpose()?;
    let journal = trace.as_ref().map(|_| Journal::new());
    let limit = config.limit.pages();
    let Inheritance { core, far, root, insides } = if config.take_over {
        takeover::inherit(config.pid, limit, &mut probes, journal, config.far)?
    } else {
        check(config.pid)?;
        let far = FarMemory::connect(config.far)?;
        let mut core =
            Core::new(limit, standby_pages(limit), journal, probes.can_poison).map_err(PagerError::Memory)?;
        core.estate.root_set(config.pid, probes.features);
        Inheritance { core, far, root: config.pid, insides: Vec::new() }
    };
    let mut core = core;
    core.estate.trustee_set(config.trustee.as_ref().map(Trustee::identity));
    let (serving, storing) = (far.port()?, far.port()?);
    let shared = Shared::new(core).map_err(PagerError::Memory)?;
    let mut report = config.ready.map(File::from);

    let result = std::thread::scope(|scope| {
        let mut faults = FaultThread::new(&shared, serving).map_err(PagerError::Memory)?;
        let shared = &shared;
        let ended = move |what: &str, result: std::io::Result<()>| {
            if let Err(error) = result {
                tracing::error!("the {what} thread failed: {error}");
                // The resident threads hold the userfaultfds: the target waits, it is not harmed.
                std::process::abort();
            }
        };
        spawn(scope, "fault", move || ended("fault", faults.run()))?;
        let mut evictor = Evictor::new(
            shared,
            storing,
            Box::new({
                let far = far.clone();
                move || grow(shared, &far)
            }),
            probes.can_move,
        );
        let followed: Vec<u32> = insides.iter().map(|(_, inside)| inside.resident.pid()).collect();
        spawn(scope, "evict", move || {
            // It works ahead of need: a fault comes first. To be an ordinary thread needs no right.
            let _ = rustix::process::setpriority_process(None, 0);
            evictor.inherit(&insides);
            evictor.run();
        })?;

        let entered = if config.take_over {
            takeover::wake(shared);
            Ok(begun.elapsed())
        } else {
            attach(shared, &probes, root, config.exec, &mut report)
        };
        let outcome = entered.and_then(|pause| {
            let control = Control::new(root, command, far.clone(), pause);
            control.serve(scope, shared, &mut report, pause)?;
            Keeper::new(shared, probes.clone(), root, trace).following(followed).run();
            Ok(())
        });
        shared.stop.store(true, Relaxed);
        shared.wake_server();
        shared.evict.notify_all();
        outcome
    });
    // A successor that could not begin leaves everything to the next one.
    if !(config.take_over && result.is_err()) {
        far.destroy();
    }
    result
}

/// A sixteenth of the limit is the second chance of pages on their way out.
fn standby_pages(limit: u64) -> usize {
    (limit / 16).clamp(256, 1 << 15) as usize
}

/// How many pages a standby list of `capacity` places should hold under a limit: a list keeps the places that it was made
/// with, for other processes hold its memory, and an evictor's batches need some of them.
fn standby_target(limit: u64, capacity: usize) -> usize {
    standby_pages(limit).min(capacity.saturating_sub(4 * space::BATCH_PAGES))
}

/// Reserves more far memory, and notes it for a successor before it is used.
fn grow(shared: &Shared, far: &FarMemory) -> Result<Option<Range<u32>>, FarError> {
    let Some(slots) = far.grow()? else { return Ok(None) };
    let mut core = shared.lock();
    if !core.estate.extents_note(&far.extents()) {
        core.warn("far memory is in more segments than would outlive the pager: no more is used".to_owned());
        return Ok(None);
    }
    Ok(Some(slots))
}

/// Enters the process; gives how long it stood still.
fn attach(
    shared: &Shared,
    probes: &Probes,
    pid: u32,
    exec: bool,
    report: &mut Option<File>,
) -> Result<Duration, PagerError> {
    let (resident, stopped) = if exec {
        let held = Held::seize(pid)?;
        tell(report, "{\"held\":true}");
        held.wait_exec()?
    } else {
        start(pid)?
    };
    let resident = Arc::new(resident);
    // A program that begins under far memory does not begin before that is in force. One that runs already goes on at once.
    let (stopped, pause) = if exec { (Some(stopped), None) } else { (None, Some(stopped.release())) };
    let adopted = keeper::adopt(shared, probes, Arc::clone(&resident));
    let pause = pause.or_else(|| stopped.map(Stopped::release)).unwrap_or_default();
    match adopted {
        Err(error) if resident.is_gone() => {
            tracing::info!(pid, "the program was replaced or ended during the attach: {error}");
            Ok(pause)
        }
        Err(error) => {
            rackmem_inject::dismiss(&resident)?;
            Err(error)
        }
        Ok(_) => Ok(pause),
    }
}

fn tell(report: &mut Option<File>, line: &str) {
    if let Some(file) = report {
        // Whoever asked may have gone; the target is served all the same.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}

/// What must be so before anything is touched.
fn check(pid: u32) -> Result<(), PagerError> {
    let status = process_status(pid).map_err(|_| PagerError::NoProcess(pid))?;
    if status.thread_group != pid {
        return Err(PagerError::Thread { pid, process: status.thread_group });
    }
    if !status.has_memory {
        return Err(PagerError::NoMemory(pid, status.name));
    }
    if status.tracer != 0 {
        return Err(PagerError::Traced { pid, tracer: status.tracer });
    }
    if procfs::is_entered(pid) {
        return Err(PagerError::Entered(pid));
    }
    Ok(())
}

fn spawn<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() + Send + 'scope,
) -> Result<(), PagerError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn_scoped(scope, body)
        .map(|_| ())
        .map_err(PagerError::Memory)
}
