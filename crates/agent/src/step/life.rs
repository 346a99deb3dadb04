//! Steps of a VM's life: it is started, paused, ended, and its files come and go.

use std::time::Duration;

use rackmem_api::Problem;
use rackmem_api::agent::{Driver, ElasticBounds};
use rackmem_api::problem::ProblemType;
use rackmem_qemu::{Machine, RunState, process};
use rackmem_types::Bytes;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Note, memory};
use crate::ground::Ground;
use crate::problem::{from_qemu, from_store};
use crate::store::now_ms;
use crate::vm::{VmRecord, Wanted};

/// How long QEMU gets to end by itself when it is told to: it has nothing to save.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks at whether a guest has shut down.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A guest that is still booting overhears its power button, so it is pressed again.
const PRESS_EVERY: Duration = Duration::from_secs(5);

pub(super) async fn start(ground: &Ground, vm: &VmRecord) -> Result<Note, Problem> {
    let (machine, process) = ground.machines.start(vm).await?;
    memory::prepare(machine.as_ref(), vm).await?;
    change(ground, vm, |record| {
        record.process = Some(process);
        record.started_ms = Some(now_ms());
        record.failure = None;
    })
    .await
}

pub(super) async fn let_run(ground: &Ground, vm: &VmRecord) -> Result<Note, Problem> {
    let (machine, _) = ground.machines.running(vm).await?;
    machine.resume().await.map_err(|error| from_qemu(&error))?;
    change(ground, vm, |record| record.wanted = Wanted::Running).await
}

/// A machine that stands again, for a start that is taken back; the step before ends it.
pub(super) async fn undo_let_run(ground: &Ground, vm: &VmRecord) -> Result<Note, Problem> {
    if let Ok(Some((machine, _))) = ground.machines.find(vm).await {
        machine.pause().await.map_err(|error| from_qemu(&error))?;
    }
    change(ground, vm, |record| record.wanted = Wanted::Paused).await
}

pub(super) async fn pause(ground: &Ground, vm: &VmRecord) -> Result<Note, Problem> {
    let (machine, _) = ground.machines.running(vm).await?;
    machine.pause().await.map_err(|error| from_qemu(&error))?;
    change(ground, vm, |record| record.wanted = Wanted::Paused).await
}

pub(super) async fn shut_down(
    ground: &Ground,
    vm: &VmRecord,
    patience_s: u32,
    cancel: &CancellationToken,
) -> Result<Note, Problem> {
    let Some((machine, process)) = ground.machines.find(vm).await? else { return Ok(None) };
    if vm.wanted == Wanted::Paused {
        // A guest that stands still cannot shut down.
        machine.resume().await.map_err(|error| from_qemu(&error))?;
    }
    change(ground, vm, |record| record.wanted = Wanted::Stopped).await?;
    let begin = Instant::now();
    let mut pressed: Option<Instant> = None;
    while process.is_alive() && machine.state().await.is_ok_and(|state| state != RunState::ShutDown) {
        if begin.elapsed() > Duration::from_secs(patience_s.into()) {
            change(ground, vm, |record| record.wanted = Wanted::Running).await?;
            let detail = format!(
                "the guest did not shut down within {patience_s} s: give it more time, or turn it off with --force"
            );
            return Err(Problem::new(ProblemType::Timeout, detail));
        }
        if pressed.is_none_or(|pressed| pressed.elapsed() > PRESS_EVERY) {
            // It may be gone by now, which the loop sees.
            let _ = machine.power_down().await;
            pressed = Some(Instant::now());
        }
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            () = cancel.cancelled() => return Err(stay_up(ground, vm, machine.as_ref()).await),
        }
    }
    Ok(None)
}

/// Nobody waits any more for a guest to shut down: it is to be as it was. One that is on its way down cannot be called back.
async fn stay_up(ground: &Ground, vm: &VmRecord, machine: &dyn Machine) -> Problem {
    // Stopped, because the wait was begun by another agent: whether it was paused before is not known.
    let wanted = if vm.wanted == Wanted::Paused { Wanted::Paused } else { Wanted::Running };
    if wanted == Wanted::Paused
        && let Err(error) = machine.pause().await
    {
        tracing::warn!(vm = %vm.name(), %error, "a machine that was paused runs on");
    }
    match change(ground, vm, |record| record.wanted = wanted).await {
        Ok(_) => Problem::new(ProblemType::Cancelled, "the guest is not waited for any more"),
        Err(problem) => problem,
    }
}

pub(super) async fn end(ground: &Ground, vm: &VmRecord) -> Result<Note, Problem> {
    change(ground, vm, |record| record.wanted = Wanted::Stopped).await?;
    if vm.domain.is_none() {
        ground.machines.end(vm, END_PATIENCE).await?;
    }
    change(ground, vm, |record| record.failure = None).await
}

pub(super) async fn remove_files(ground: &Ground, vm: &VmRecord) -> Result<Note, Problem> {
    ground.machines.remove(vm).await.map(|()| None)
}

pub(super) async fn reconfigure(
    ground: &Ground,
    vm: &VmRecord,
    (memory, memory_max): (Bytes, Option<Bytes>),
) -> Result<Note, Problem> {
    change(ground, vm, |record| {
        record.spec.memory = memory;
        record.spec.memory_max = memory_max;
        record.target = memory;
    })
    .await
}

pub(super) async fn elastic(
    ground: &Ground,
    vm: &VmRecord,
    bounds: Option<ElasticBounds>,
) -> Result<Note, Problem> {
    change(ground, vm, |record| record.elastic = bounds).await
}

/// What QEMU said last, for a sentence.
pub(crate) fn last_words(ground: &Ground, vm: &VmRecord) -> String {
    let said = match vm.spec.driver {
        Driver::Libvirt => ground.machines.domains().last_words(vm.name()),
        Driver::Qemu => {
            ground.machines.files(vm.name()).machine().ok().as_ref().and_then(process::last_words)
        }
    };
    said.map_or_else(
        || "QEMU has ended and said nothing".to_owned(),
        |words| format!("QEMU has ended; its last words: {words}"),
    )
}

pub(super) async fn change(
    ground: &Ground,
    vm: &VmRecord,
    change: impl FnOnce(&mut VmRecord) + Send,
) -> Result<Note, Problem> {
    ground.store.vm_change(vm.name(), change).await.map_err(from_store)?;
    Ok(None)
}
