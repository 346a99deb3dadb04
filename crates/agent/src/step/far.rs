//! Steps that give a VM far memory, change it, and take it back.

use std::time::Duration;

use rackmem_api::Problem;
use rackmem_api::agent::Attachment;
use rackmem_api::problem::ProblemType;
use rackmem_control::LendReport;
use rackmem_types::Bytes;
use tokio::time::{Instant, sleep};

use super::Note;
use super::life::change;
use crate::ground::Ground;
use crate::host;
use crate::problem::from_store;
use crate::vm::VmRecord;

/// A pager whose target has ended destroys its segments and ends; a server that does not answer holds it up so long.
const PAGER_END_MAX: Duration = Duration::from_secs(15);

/// What is above the local limit leaves at some GiB a second on a fast network; a large machine goes on with it afterwards.
const LIMIT_MAX: Duration = Duration::from_secs(5);

/// Between two looks at whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(super) async fn attach(ground: &Ground, vm: &VmRecord) -> Result<Note, Problem> {
    let Some(far) = ground.far(vm).await? else { return Ok(None) };
    let process = vm.alive().ok_or_else(|| ended(vm))?;
    ground.pagers.attach(process.pid, &far).await?;
    Ok(await_limit(ground, process.pid).await)
}

/// Waits until what is above the local limit has left; what that takes too long for is told.
async fn await_limit(ground: &Ground, pid: u32) -> Note {
    let begin = Instant::now();
    loop {
        let stats = ground.pagers.stats(pid).await?;
        if stats.local <= stats.limit {
            return None;
        }
        if begin.elapsed() > LIMIT_MAX {
            return Some(format!("{} are still local, more than the limit of {}", stats.local, stats.limit));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// For a VM of ours the process ends next, and its pager with it. A foreign one goes on and gets its memory back.
pub(super) async fn undo_attach(ground: &Ground, vm: &VmRecord) -> Result<Note, Problem> {
    if vm.domain.is_none() { Ok(None) } else { bring_home(ground, vm).await }
}

pub(super) async fn bring_home(ground: &Ground, vm: &VmRecord) -> Result<Note, Problem> {
    let Some(process) = vm.alive() else { return Ok(None) };
    let report = ground.pagers.detach(process.pid).await?;
    await_end(ground, vm).await?;
    Ok(report.map(|report| {
        let fetched = Bytes::from_pages(report.pages_fetched);
        format!("{fetched} came home in {} ms", report.took_us.div_ceil(1000))
    }))
}

pub(super) async fn await_end(ground: &Ground, vm: &VmRecord) -> Result<Note, Problem> {
    let Some(process) = vm.process else { return Ok(None) };
    let begin = Instant::now();
    while ground.pagers.is_up(process.pid).await {
        if begin.elapsed() > PAGER_END_MAX {
            return Ok(Some(format!(
                "the pager of process {} is still giving its far memory back; its memory server may be out of reach",
                process.pid
            )));
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(None)
}

pub(super) async fn limit(ground: &Ground, vm: &VmRecord, limit: Bytes) -> Result<Note, Problem> {
    let mut note = None;
    if let Some(process) = vm.alive()
        && let Err(problem) = ground.pagers.limit_set(process.pid, limit).await
    {
        // A limit can be in force although not all that is above it could leave so far.
        let in_force = ground.pagers.stats(process.pid).await.is_some_and(|stats| stats.limit == limit);
        note = if in_force { Some(problem.detail) } else { return Err(problem) };
    }
    change(ground, vm, |record| record.spec.local = Some(limit)).await?;
    Ok(note)
}

/// A VM that has attachments takes its far memory from their servers.
pub(super) async fn attachments(
    ground: &Ground,
    vm: &VmRecord,
    entries: &[Attachment],
) -> Result<Note, Problem> {
    change(ground, vm, |record| {
        record.spec.attachments = entries.iter().map(|entry| entry.id.clone()).collect();
        record.spec.memory_servers.clear();
        for entry in entries {
            if !record.spec.memory_servers.contains(&entry.server) {
                record.spec.memory_servers.push(entry.server.clone());
            }
        }
    })
    .await
}

/// The VM's attachments become `entries`. Its pager goes on with them, and the guest notices nothing, unless pages may lie on
/// what goes: then all its memory comes home first, and it is attached anew.
pub(super) async fn lend(ground: &Ground, vm: &VmRecord, entries: &[Attachment]) -> Result<Note, Problem> {
    // First, for a successor of a pager that dies just now is told what the VM is to have.
    attachments(ground, vm, entries).await?;
    let vm = &ground.store.vm(vm.name()).await.map_err(from_store)?;
    let Some(far) = ground.far(vm).await? else { return Ok(None) };
    // One that has ended meanwhile begins with what it has now.
    let Some(process) = vm.alive() else { return Ok(None) };
    let mut report = ground.pagers.lend(process.pid, &far).await?;
    if report.is_none() {
        // It died, or a try before this one had all memory brought home.
        ground.pagers.attach(process.pid, &far).await?;
        report = ground.pagers.lend(process.pid, &far).await?;
    }
    match report {
        Some(LendReport::InForce) => Ok(None),
        Some(LendReport::InUse(_)) => {
            room_at_home(ground, vm, process.pid).await?;
            let home = bring_home(ground, vm).await?;
            attach(ground, vm).await.map(|note| note.or(home))
        }
        None => Err(ended(vm)),
    }
}

async fn room_at_home(ground: &Ground, vm: &VmRecord, pid: u32) -> Result<(), Problem> {
    let far = ground.pagers.stats(pid).await.map_or(Bytes(0), |stats| stats.far);
    let available = host::memory().available;
    if far <= available {
        return Ok(());
    }
    let detail = format!(
        "'{}' has {far} far and would have to bring it home, and this brick has {available} free: stop it first",
        vm.name()
    );
    Err(Problem::new(ProblemType::Capacity, detail))
}

fn ended(vm: &VmRecord) -> Problem {
    let detail = format!(
        "the process of '{}' has ended: 'rackmem vm log {0} --source qemu' has its last words",
        vm.name()
    );
    Problem::new(ProblemType::Backend, detail)
}
