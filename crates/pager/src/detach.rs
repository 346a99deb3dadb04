//! Lets the target go: everything comes home, and nothing is left behind.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rackmem_control::DetachReport;
use rackmem_inject::InjectError;

use crate::Shared;
use crate::core::PAGE;
use crate::kernel::Mapping;
use crate::procfs;
use crate::space::STAGING_BYTES;
use crate::sync::sleep;
use crate::table::SpaceId;

/// How often it is looked whether all pages are home.
const LOOK: Duration = Duration::from_millis(2);

/// Brings everything home and takes the resident threads out. The target runs on meanwhile.
pub(crate) fn detach(shared: &Shared) -> Result<DetachReport, String> {
    let begin = Instant::now();
    let stopped = shared.lock().spaces().find_map(|(_, space)| {
        let resident = &space.inside.as_ref()?.resident;
        resident.is_stopped().then(|| resident.pid())
    });
    if let Some(pid) = stopped {
        return Err(format!(
            "process {pid} was stopped by a signal, and nothing can be taken out of it: let it go on (kill -CONT {pid}) first"
        ));
    }
    if shared.detaching.swap(true, Relaxed) {
        return Err("a detach is under way already".to_owned());
    }
    let mut core = shared.lock();
    core.hold += 1; // no batch leaves any more, and no fault waits for room
    while core.batch.is_some() {
        core = shared.batch_done.wait(core).unwrap_or_else(PoisonError::into_inner);
    }
    let before = core.counters.fetched + core.counters.prefetched;
    drop(core);
    loop {
        shared.wake_server();
        sleep(LOOK);
        let mut core = shared.lock();
        if core.lost > 0 && !core.can_poison {
            core.hold -= 1;
            shared.detaching.store(false, Relaxed);
            return Err(format!(
                "{} pages are lost with their memory server; once detached they would read as zeros, which this kernel \
                 cannot prevent (Linux 6.6 can); the target stays as it is",
                core.lost
            ));
        }
        // Poisoning what was lost may have been refused when it was lost.
        if core.far == 0 && core.standby.live() == 0 && core.poison_lost() {
            break;
        }
    }
    let core = shared.lock();
    let pages_fetched = core.counters.fetched + core.counters.prefetched - before;
    drop(core);
    // No page is away any more, and none will go: what is missing from here on is empty, and the kernel may serve it.
    let ids: Vec<SpaceId> = shared.lock().spaces().map(|(id, _)| id).collect();
    for id in ids {
        release(shared, id)
            .map_err(|error| format!("the target runs, but traces are left in it: {error}"))?;
    }
    shared.stop.store(true, Relaxed);
    shared.wake_server();
    Ok(DetachReport { pages_fetched, took_us: begin.elapsed().as_micros() as u64 })
}

fn release(shared: &Shared, id: SpaceId) -> Result<(), InjectError> {
    let inside = {
        let core = shared.lock();
        let Some(space) = core.space(id) else { return Ok(()) };
        for region in space.regions.iter() {
            unregister(&*space.uffd, region.start, region.end);
        }
        // Registered with their neighbours, and not looked at yet.
        let thread = space.inside.as_ref().map(|inside| inside.resident.thread());
        for span in thread.and_then(|thread| procfs::spans(thread).ok()).unwrap_or_default() {
            let _ = space.uffd.unregister(span.range.start, span.range.end - span.range.start);
        }
        unregister(&*space.uffd, space.badge_address, space.badge_address + PAGE);
        if let Some(inside) = &space.inside {
            unregister(&*space.uffd, inside.staging, inside.staging + STAGING_BYTES);
        }
        space.inside.clone()
    };
    match inside.map(|inside| inside.resident.leave(&inside)) {
        None | Some(Ok(()) | Err(InjectError::Gone(_) | InjectError::ResidentGone(_))) => Ok(()),
        Some(Err(error)) => Err(error),
    }
}

/// A range may have been unmapped in part: what is still there is released chunk by chunk.
fn unregister(uffd: &dyn Mapping, start: u64, end: u64) {
    if uffd.unregister(start, end - start).is_ok() {
        return;
    }
    let middle = start + (end - start) / PAGE / 2 * PAGE;
    if middle > start {
        unregister(uffd, start, middle);
        unregister(uffd, middle, end);
    }
}
