//! What has to be taken back: swap areas, loop devices, cgroups, child processes.
//!
//! Each step that changes the machine leaves a [`Undo`] behind. It runs when it is dropped, when the user presses
//! Ctrl-C, on SIGTERM and on a panic, in the reverse order of the steps. It never asks and never gives up half way: a step
//! that fails is reported, and the next one runs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::{self, ThreadId};

type Step = Box<dyn FnOnce() -> anyhow::Result<()> + Send>;

struct Entry {
    id: u64,
    what: String,
    step: Step,
}

static STEPS: Mutex<Vec<Entry>> = Mutex::new(Vec::new());
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// The thread that takes everything back, once there is one. All others stop where they next meet this module, so that
/// nothing new is started and the program does not end before all is done.
static ENDING: OnceLock<ThreadId> = OnceLock::new();

/// Exit status of a program that was ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

/// A step to take back. Dropping it takes the step back.
#[must_use = "dropping it takes the step back at once"]
#[derive(Debug)]
pub(crate) struct Undo(u64);

/// Remembers how to take a step back; `what` is shown if that fails.
pub(crate) fn later(
    what: impl Into<String>,
    step: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> Undo {
    stop_if_ending();
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    if let Ok(mut steps) = STEPS.lock() {
        steps.push(Entry { id, what: what.into(), step: Box::new(step) });
    }
    Undo(id)
}

/// A temporary directory that goes with everything else.
pub(crate) fn temporary_directory() -> anyhow::Result<(PathBuf, Undo)> {
    let path = tempfile::Builder::new().prefix("rackmem-bench-").tempdir()?.keep();
    let same = path.clone();
    let undo = later(format!("remove {}", path.display()), move || Ok(std::fs::remove_dir_all(same)?));
    Ok((path, undo))
}

/// Takes everything back on Ctrl-C, SIGTERM, SIGHUP and panics. To be called once, before any thread starts.
pub(crate) fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        eprintln!("\nending everything that was started …");
        all();
        std::process::exit(INTERRUPTED);
    })?;
    // The release profile aborts on a panic, so no destructor would run.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        all();
    }));
    Ok(())
}

/// Stops the calling thread for ever if another one is taking everything back.
pub(crate) fn stop_if_ending() {
    while ENDING.get().is_some_and(|ending| *ending != thread::current().id()) {
        thread::park();
    }
}

/// Takes every step back, the latest first. Nothing can be started afterwards.
fn all() {
    if *ENDING.get_or_init(|| thread::current().id()) != thread::current().id() {
        stop_if_ending();
    }
    while let Some(entry) = STEPS.lock().ok().and_then(|mut steps| steps.pop()) {
        entry.run();
    }
}

impl Entry {
    fn run(self) {
        if let Err(error) = (self.step)() {
            eprintln!("could not {}: {error:#}", self.what);
        }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        stop_if_ending();
        let entry = STEPS.lock().ok().and_then(|mut steps| {
            let at = steps.iter().position(|entry| entry.id == self.0)?;
            Some(steps.remove(at))
        });
        // Run outside the lock: a step may itself drop other steps.
        if let Some(entry) = entry {
            entry.run();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_dropped_step_is_taken_back_once() {
        let count = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&count);
        let undo = later("count", move || {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        assert_eq!(count.load(Ordering::Relaxed), 0);
        drop(undo);
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}
