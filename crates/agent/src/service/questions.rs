//! Views: what is asked of the store, the machines, the pagers and the host at the moment of a request. A machine that does not answer
//! at once is told as it was last.

use std::time::Duration;

use futures_util::future::join_all;
use rackmem_api::Problem;
use rackmem_api::agent::{
    Accelerator, AcceleratorKind, ElasticView, FarPart, FarState, GuestMemory, HostView, Origin, PagerState,
    PagerView, VmMemory, VmState, VmView, kind,
};
use rackmem_control::TargetStats;
use rackmem_qemu::RunState;
use rackmem_types::Bytes;
use tokio::time::timeout;

use super::Agent;
use crate::host;
use crate::problem::from_store;
use crate::seen::Sight;
use crate::store::now_ms;
use crate::vm::{VmRecord, Wanted};

/// A machine that is being started, or whose monitor does not greet, is not waited for longer by those who look.
const FIND: Duration = Duration::from_secs(1);

/// Figures of this age are told as such; guests tell theirs once a second.
const OLD: Duration = Duration::from_secs(2);

/// Of a machine that has not told anything to this agent.
const SILENT: &str = "QEMU has not answered yet: what it does and its size are not known";

impl Agent {
    /// All VMs.
    pub(crate) async fn views(&self) -> Result<Vec<VmView>, Problem> {
        let records = self.ground.store.vm_list().await.map_err(from_store)?;
        Ok(join_all(records.iter().map(|record| self.view(record))).await)
    }

    /// One VM as it is now. What cannot be asked is told as a warning.
    pub(super) async fn view(&self, record: &VmRecord) -> VmView {
        let mut warnings = Vec::new();
        let operation = self.ground.store.operation_running(record.name().as_str()).await.ok().flatten();
        let found = match timeout(FIND, self.ground.machines.find(record)).await {
            Ok(Ok(found)) => found,
            Ok(Err(problem)) => {
                warnings.push(problem.detail);
                None
            }
            Err(_) => {
                warnings.extend(record.alive().map(|_| SILENT.to_owned()));
                None
            }
        };
        let process = found.as_ref().map(|(_, process)| *process).or_else(|| record.alive());
        let pager = match process {
            Some(process) if record.spec.local.is_some() => self.ground.pagers.stats(process.pid).await,
            _ => None,
        };
        let sight = match &found {
            Some((machine, _)) => Some(machine.look().await),
            None => None,
        };
        warnings.extend(sight.iter().flat_map(doubts));
        let running = sight.as_ref().and_then(|sight| sight.running.as_ref());
        let mut memory = memory(record, sight.as_ref(), pager.as_ref());
        self.name_attachments(record, &mut memory).await;
        warnings.extend(pager.iter().flat_map(|stats| stats.warnings.iter().cloned()));
        let waits =
            record.spec.local.is_some() && process.is_some() && pager.is_none() && operation.is_none();
        let (state, reason) = state(
            record,
            operation.as_ref().map(|operation| operation.kind.as_str()),
            running,
            process.is_some(),
            waits,
        );
        let offered = self.ground.machines.hypervisor().known();
        let is_own = record.domain.is_none();
        VmView {
            name: record.name().clone(),
            state,
            reason,
            origin: if is_own { Origin::Created } else { Origin::Attached },
            driver: record.spec.driver,
            pid: process.map(|process| process.pid),
            vcpus: record.spec.vcpus,
            boot: is_own.then(|| record.spec.boot.clone()),
            accelerator: offered.filter(|_| is_own).map(|qemu| accelerator(&qemu.accelerator)),
            qemu: offered
                .filter(|_| is_own && process.is_some())
                .map(|qemu| qemu.capabilities.version_text()),
            pager: pager_view(record, pager.as_ref(), waits),
            memory,
            elastic: record.elastic.map(|bounds| ElasticView { bounds, decisions: record.decisions.clone() }),
            attachments: record.spec.attachments.clone(),
            operation: operation.map(|operation| operation.id),
            warnings,
            created_ms: record.created_ms,
            started_ms: record.started_ms.filter(|_| process.is_some()),
        }
    }

    /// Says which attachment lends the memory on a server, and how far away that is.
    async fn name_attachments(&self, record: &VmRecord, memory: &mut VmMemory) {
        for id in &record.spec.attachments {
            let Ok(row) = self.ground.store.attachment(id).await else { continue };
            let lends = |part: &&mut FarPart| part.server == row.entry.server && part.attachment.is_none();
            if let Some(part) = memory.parts.iter_mut().find(lends) {
                part.attachment = Some(id.clone());
                part.segment = row.entry.segment;
                part.class = Some(row.entry.class);
            }
        }
    }

    pub(super) async fn host_view(&self) -> Result<HostView, Problem> {
        let store = &self.ground.store;
        let records = store.vm_list().await.map_err(from_store)?;
        let pids = records.iter().filter(|vm| vm.spec.local.is_some()).filter_map(|vm| vm.alive());
        let pagers: Vec<TargetStats> = join_all(pids.map(|process| self.ground.pagers.stats(process.pid)))
            .await
            .into_iter()
            .flatten()
            .collect();
        let mut memory = host::memory();
        memory.pool = self.pool();
        memory.promised = Bytes(records.iter().map(|vm| vm.promised().0).sum());
        memory.local = Bytes(pagers.iter().map(|stats| stats.local.0).sum());
        memory.far = Bytes(pagers.iter().map(|stats| stats.far.0).sum());
        let qemu = self.ground.machines.hypervisor().known();
        let attachments = store.attachment_list().await.map_err(from_store)?.len();
        Ok(HostView {
            name: host::name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: store.generation().await.map_err(from_store)?,
            cores: host::cores(),
            memory,
            numa: host::numa(),
            pressure: host::pressure(),
            power: Some(host::power().await),
            accelerator: qemu.map_or_else(unknown, |qemu| accelerator(&qemu.accelerator)),
            qemu: qemu.map(|qemu| qemu.capabilities.version_text()),
            memory_servers: self.ground.config.memory_servers.clone(),
            vms: records.len() as u32,
            attachments: attachments as u32,
            operations: self.engine.count() as u32,
            started_ms: self.started_ms,
            now_ms: now_ms(),
        })
    }
}

/// What a VM does, and why where that is not plain.
fn state(
    record: &VmRecord,
    operation: Option<&str>,
    running: Option<&RunState>,
    is_alive: bool,
    waits: bool,
) -> (VmState, Option<String>) {
    match (operation, running) {
        (Some(kind::VM_DELETE), _) => (VmState::Deleting, None),
        (Some(kind::VM_CREATE), _) => (VmState::Creating, None),
        (_, Some(RunState::Failed(word))) => (VmState::Failed, Some(format!("QEMU says: {word}"))),
        (_, Some(RunState::ShutDown)) => (VmState::Stopped, Some("the guest has shut down".to_owned())),
        (_, Some(RunState::Paused | RunState::Prepared)) => (VmState::Paused, None),
        _ if waits => (VmState::Waiting, Some("its pager has died; a successor is being started".to_owned())),
        _ if is_alive => (VmState::Running, None),
        _ if record.failure.is_some() => (VmState::Failed, record.failure.clone()),
        _ if record.wanted == Wanted::Stopped => (VmState::Stopped, None),
        _ => (VmState::Failed, Some("its process has ended".to_owned())),
    }
}

/// What the user should know of what is told of a machine.
fn doubts(sight: &Sight) -> Vec<String> {
    let age = match sight.age() {
        None if sight.refusal.is_none() => Some(SILENT.to_owned()),
        Some(age) if age >= OLD => Some(format!(
            "QEMU is busy and does not answer at once: what it does and its size are as they were {} s ago",
            age.as_secs()
        )),
        _ => None,
    };
    age.into_iter().chain(sight.refusal.clone()).collect()
}

fn memory(record: &VmRecord, sight: Option<&Sight>, pager: Option<&TargetStats>) -> VmMemory {
    let mut memory = VmMemory {
        target: record.target,
        max: record.memory_max(),
        base: record.spec.memory,
        local_limit: record.spec.local,
        local: pager.map_or(Bytes(0), |stats| stats.local),
        far: pager.map_or(Bytes(0), |stats| stats.far),
        parts: pager.map(far_parts).unwrap_or_default(),
        ..VmMemory::default()
    };
    if let Some(limit) = pager.map(|stats| stats.limit) {
        memory.local_limit = Some(limit);
    }
    let Some(sight) = sight else {
        memory.size = if record.domain.is_some() { record.spec.memory } else { Bytes(0) };
        return memory;
    };
    if let Some(state) = &sight.memory {
        memory.size = state.usable();
        memory.base = state.boot;
        memory.plugged = Bytes(state.in_virtio_mem().0 + state.in_dimms().0);
        memory.ballooned = state.ballooned();
    }
    memory.guest = sight.guest.as_ref().map(guest_memory);
    if pager.is_none() && record.spec.local.is_none() {
        memory.local = record.alive().map_or(Bytes(0), |process| host::resident(process.pid));
    }
    memory
}

fn far_parts(stats: &TargetStats) -> Vec<FarPart> {
    let part = |server: &rackmem_control::ServerStats| FarPart {
        server: server.address.clone(),
        segment: None,
        class: None,
        attachment: None,
        reserved: server.reserved,
        used: server.used,
        state: match server.state.as_str() {
            "up" => FarState::Up,
            "lost" => FarState::Lost,
            _ => FarState::Reconnecting,
        },
    };
    stats.servers.iter().map(part).collect()
}

/// As the API tells it; what the guest did not say is zero.
pub(crate) fn guest_memory(guest: &rackmem_qemu::memory::GuestMemory) -> GuestMemory {
    GuestMemory {
        total: guest.total.unwrap_or_default(),
        available: guest.available.unwrap_or_default(),
        free: guest.free.unwrap_or_default(),
        swapped_in: guest.swapped_in.unwrap_or_default(),
        swapped_out: guest.swapped_out.unwrap_or_default(),
        major_faults: guest.major_faults.unwrap_or_default(),
        at_ms: guest.updated_s * 1000,
    }
}

fn pager_view(record: &VmRecord, stats: Option<&TargetStats>, waits: bool) -> Option<PagerView> {
    record.spec.local?;
    match stats {
        Some(stats) => Some(PagerView { pid: Some(stats.pager_pid), state: PagerState::Up }),
        None => waits.then_some(PagerView { pid: None, state: PagerState::Restarting }),
    }
}

/// Translation works everywhere; whether there is better is seen within seconds, if there is a QEMU.
fn unknown() -> Accelerator {
    let reason = "QEMU is still being looked at, or is missing: the agent's log says which".to_owned();
    Accelerator { kind: AcceleratorKind::Tcg, reason }
}

fn accelerator(offered: &rackmem_qemu::Accelerator) -> Accelerator {
    let kind = match offered.kind {
        rackmem_qemu::AcceleratorKind::Kvm => AcceleratorKind::Kvm,
        rackmem_qemu::AcceleratorKind::Tcg => AcceleratorKind::Tcg,
    };
    Accelerator { kind, reason: offered.reason.clone() }
}
