//! Changes of a VM's life: made, started, stopped, paused, deleted.

use std::time::Duration;

use rackmem_api::agent::{Driver, ElasticBounds, StopRequest, VmSpec, kind};
use rackmem_api::problem::ProblemType;
use rackmem_api::{Change, Operation, OperationId, Problem, VmName};
use rackmem_qemu::{Machine, RunState};
use rackmem_types::Bytes;
use uuid::Uuid;

use super::Agent;
use crate::host;
use crate::operation::OnFailure;
use crate::problem::{from_store, invalid, wrong_state};
use crate::step::{Step, Work};
use crate::store::{Effect, now_ms};
use crate::vm::{VmRecord, Wanted};

/// What a guest gets to shut down where a request does not say.
const STOP_PATIENCE_S: u32 = 60;

/// How long a delete waits for what it cancels to be undone: as long as QEMU and its pager take to end.
const CANCEL_MAX: Duration = Duration::from_secs(30);

impl Agent {
    pub(super) async fn create(&self, change: &Change, spec: VmSpec) -> Result<Operation, Problem> {
        spec.check()?;
        let start = spec.start;
        let name = spec.name.clone();
        let given = spec.attachments.clone();
        let mut record = VmRecord::new(spec, now_ms());
        if record.spec.driver == Driver::Libvirt {
            self.ground.machines.domains().check(&name).await?;
            record.uuid = Some(Uuid::now_v7());
        }
        let mut effects = Vec::new();
        self.take_servers_of_attachments(&mut record).await?;
        self.check_room(&record).await?;
        self.ground.machines.check(&record).await?;
        effects.push(Effect::VmInsert(Box::new(record)));
        effects.extend(given.into_iter().map(|id| Effect::AttachmentGive(id, Some(name.clone()))));
        let mut steps = vec![Step::PrepareFiles];
        if start {
            steps.extend([Step::StartQemu, Step::AttachFar, Step::LetRun]);
        }
        let mut work = whole(&name, steps);
        work.when_undone = vec![Effect::VmRemove(name.clone())];
        self.engine.begin(change, kind::VM_CREATE, name.as_str(), work, &effects).await
    }

    pub(super) async fn take_servers_of_attachments(&self, record: &mut VmRecord) -> Result<(), Problem> {
        for id in record.spec.attachments.clone() {
            let row = self.ground.store.attachment(&id).await.map_err(from_store)?;
            if !record.spec.memory_servers.contains(&row.entry.server) {
                record.spec.memory_servers.push(row.entry.server);
            }
        }
        Ok(())
    }

    /// Refuses more memory than this machine and the memory servers have.
    async fn check_room(&self, record: &VmRecord) -> Result<(), Problem> {
        let name = record.name();
        let pool = self.pool();
        let vms = self.ground.store.vm_list().await.map_err(from_store)?;
        let promised: u64 = vms.iter().filter(|vm| vm.name() != name).map(|vm| vm.promised().0).sum();
        let free = Bytes(pool.0.saturating_sub(promised));
        if record.promised() > free {
            let detail = format!(
                "'{name}' takes {} of this brick's RAM and {free} of its pool of {pool} are not promised yet: give it a smaller local limit (--local)",
                record.promised()
            );
            return Err(Problem::new(ProblemType::Capacity, detail));
        }
        let Some(local) = record.spec.local else { return Ok(()) };
        let servers = record.memory_servers(&self.ground.config.memory_servers);
        if servers.is_empty() {
            let detail = format!(
                "'{name}' has a local limit but no memory server: name one with --memory-server, or start the agent with one"
            );
            return Err(invalid(detail));
        }
        let needed = Bytes(record.spec.memory.0.saturating_sub(local.0));
        match self.ground.far_free(record, Bytes(0)).await? {
            Some(free) if needed > free => {
                let detail = format!(
                    "'{name}' takes {needed} of far memory and its memory servers have {free} left: take less, or add a memory server"
                );
                Err(Problem::new(ProblemType::Capacity, detail))
            }
            _ => Ok(()),
        }
    }

    /// RAM that may be promised to VMs.
    pub(super) fn pool(&self) -> Bytes {
        self.ground.config.pool.unwrap_or_else(|| host::memory().total)
    }

    pub(super) async fn start(&self, change: &Change, name: &VmName) -> Result<Operation, Problem> {
        let record = self.own(name).await?;
        if record.alive().is_some() {
            return Err(wrong_state(format!("'{name}' runs already")));
        }
        self.ground.machines.check(&record).await?;
        self.check_room(&record).await?;
        let work = whole(name, vec![Step::StartQemu, Step::AttachFar, Step::LetRun]);
        self.engine.begin(change, kind::VM_START, name.as_str(), work, &[]).await
    }

    pub(super) async fn stop(
        &self,
        change: &Change,
        name: &VmName,
        how: StopRequest,
    ) -> Result<Operation, Problem> {
        let record = self.own(name).await?;
        if record.alive().is_none() {
            return Err(wrong_state(format!("'{name}' does not run")));
        }
        let patience_s = how.timeout_s.unwrap_or(STOP_PATIENCE_S);
        let ask = (!how.force).then_some(Step::ShutDown { patience_s });
        let steps = ask.into_iter().chain([Step::EndQemu, Step::AwaitPager]).collect();
        let work = Work { on_failure: OnFailure::Keep, ..whole(name, steps) };
        self.engine.begin(change, kind::VM_STOP, name.as_str(), work, &[]).await
    }

    pub(super) async fn pause(&self, change: &Change, name: &VmName) -> Result<Operation, Problem> {
        let state = self.run_state(name).await?;
        if state != RunState::Running {
            return Err(wrong_state(format!("'{name}' is {state}, not running: it cannot be paused")));
        }
        self.engine.begin(change, kind::VM_PAUSE, name.as_str(), whole(name, vec![Step::Pause]), &[]).await
    }

    pub(super) async fn resume(&self, change: &Change, name: &VmName) -> Result<Operation, Problem> {
        let state = self.run_state(name).await?;
        if !matches!(state, RunState::Paused | RunState::Prepared) {
            return Err(wrong_state(format!("'{name}' is {state}, not paused: it cannot be resumed")));
        }
        self.engine.begin(change, kind::VM_RESUME, name.as_str(), whole(name, vec![Step::LetRun]), &[]).await
    }

    pub(super) async fn delete(&self, change: &Change, name: &VmName) -> Result<Operation, Problem> {
        let record = self.load(name).await?;
        if record.domain.is_some() {
            let detail = format!(
                "'{name}' was started by somebody else: give its memory back with 'rackmem vm detach {name}'"
            );
            return Err(wrong_state(detail));
        }
        if let Some(running) = self.ground.store.operation_running(name.as_str()).await.map_err(from_store)?
            && running.kind != kind::VM_DELETE
        {
            self.engine.cancel(running.id);
            self.wait(running.id, CANCEL_MAX).await?;
        }
        // What was cancelled may have been the making of it, and then nothing is left to do.
        let is_left = self.load(name).await.is_ok();
        let steps = vec![Step::EndQemu, Step::AwaitPager, Step::RemoveFiles];
        let mut work = whole(name, if is_left { steps } else { Vec::new() });
        work.on_failure = OnFailure::Keep;
        work.when_done = vec![Effect::VmRemove(name.clone())];
        self.engine.begin(change, kind::VM_DELETE, name.as_str(), work, &[]).await
    }

    pub(super) async fn elastic_set(
        &self,
        change: &Change,
        name: &VmName,
        bounds: Option<ElasticBounds>,
    ) -> Result<Operation, Problem> {
        let record = self.load(name).await?;
        if let Some(bounds) = bounds {
            bounds.check(record.memory_max())?;
        }
        let work = whole(name, vec![Step::Elastic { from: record.elastic, to: bounds }]);
        self.engine.begin(change, kind::VM_ELASTIC, name.as_str(), work, &[]).await
    }

    pub(super) async fn cancel(&self, id: OperationId) -> Result<Operation, Problem> {
        let operation = self.ground.store.operation(id).await.map_err(from_store)?;
        if operation.kind == kind::VM_DELETE && !operation.state.is_final() {
            return Err(wrong_state("a delete cannot be cancelled: half a machine is none"));
        }
        self.engine.cancel(id);
        Ok(operation)
    }

    /// A VM that this agent started.
    pub(super) async fn own(&self, name: &VmName) -> Result<VmRecord, Problem> {
        let record = self.load(name).await?;
        if record.domain.is_some() {
            return Err(wrong_state(format!(
                "'{name}' was started by somebody else: start and stop it there"
            )));
        }
        Ok(record)
    }

    async fn run_state(&self, name: &VmName) -> Result<RunState, Problem> {
        let record = self.load(name).await?;
        match self.ground.machines.find(&record).await? {
            Some((machine, _)) => machine.state().await.map_err(|error| crate::problem::from_qemu(&error)),
            None if record.wanted == Wanted::Stopped => Ok(RunState::Off),
            None => {
                Err(wrong_state(format!("'{name}' does not run: start it with 'rackmem vm start {name}'")))
            }
        }
    }
}

/// Work on a VM that is undone as a whole if it fails.
pub(super) fn whole(name: &VmName, steps: Vec<Step>) -> Work {
    Work {
        vm: Some(name.clone()),
        steps,
        on_failure: OnFailure::Undo,
        when_done: Vec::new(),
        when_undone: Vec::new(),
    }
}
