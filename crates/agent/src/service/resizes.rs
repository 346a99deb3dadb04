//! Changes of a VM's memory: the numbers are gathered, the planner is asked, and its plan becomes an operation.

use rackmem_api::agent::{Mechanism, ResizePlan, ResizeRequest, ResizeStep, StepCost, kind};
use rackmem_api::problem::ProblemType;
use rackmem_api::{Change, Operation, Problem, VmName};
use rackmem_qemu::Machine;
use rackmem_qemu::command_line::VIRTIO_MEM_ID;
use rackmem_types::Bytes;

use super::Agent;
use super::changes::whole;
use crate::host;
use crate::problem::{from_qemu, invalid, wrong_state};
use crate::resize::{self, Hotplug, MemoryState, Plan, Refusal, Room};
use crate::step::{Step, Work};
use crate::vm::{Dimms, VmRecord};

/// A restart within a resize gives the guest this long to shut down.
const RESTART_PATIENCE_S: u32 = 120;

/// A change of the local limit writes or reads at least at this rate over a 10 Gbit network.
const BYTES_PER_MS: u64 = 500 << 10;

impl Agent {
    pub(super) async fn resize_plan(
        &self,
        name: &VmName,
        request: ResizeRequest,
    ) -> Result<ResizePlan, Problem> {
        let record = self.load(name).await?;
        let planned = self.plan(&record, request).await?;
        Ok(planned.view(name))
    }

    pub(super) async fn resize(
        &self,
        change: &Change,
        name: &VmName,
        request: ResizeRequest,
    ) -> Result<Operation, Problem> {
        let record = self.load(name).await?;
        let planned = self.plan_with_loan(&record, request).await?;
        // What was lent is in the record now.
        let record = self.load(name).await?;
        self.begin_resize(change, &record, &planned).await
    }

    /// What a request comes to; the controller is asked for the far memory that it takes and that is not there.
    pub(crate) async fn plan_with_loan(
        &self,
        record: &VmRecord,
        request: ResizeRequest,
    ) -> Result<Planned, Problem> {
        let refused = match self.plan(record, request).await {
            Err(problem) if problem.kind == ProblemType::Capacity => problem,
            planned => return planned,
        };
        let (Some(lender), Some(memory)) = (&self.ground.config.lender, request.memory) else {
            return Err(refused);
        };
        // Only what was made through the controller lives on its attachments alone.
        if record.spec.attachments.is_empty() {
            return Err(refused);
        }
        let name = record.name();
        lender.fit(name, memory).await.map_err(|problem| {
            let detail = format!("{}; the controller was asked for it and says: {problem}", refused.detail);
            Problem::new(ProblemType::Capacity, detail)
        })?;
        let record = self.load(name).await?;
        self.plan(&record, request).await
    }

    /// Begins what was planned.
    pub(crate) async fn begin_resize(
        &self,
        change: &Change,
        record: &VmRecord,
        planned: &Planned,
    ) -> Result<Operation, Problem> {
        let work = planned.work(record);
        self.engine.begin(change, kind::VM_RESIZE, record.name().as_str(), work, &[]).await
    }

    /// What a request comes to, as things are now.
    pub(crate) async fn plan(&self, record: &VmRecord, request: ResizeRequest) -> Result<Planned, Problem> {
        let name = record.name();
        if request.memory.is_none() && request.local.is_none() {
            return Err(invalid("a resize needs a size: give memory, local or both"));
        }
        let local = self.plan_local(record, request)?;
        let Some(wanted) = request.memory else {
            let size = self.ground.machines.running(record).await.ok();
            let from = match size {
                Some((machine, _)) => machine.memory().await.map_err(|error| from_qemu(&error))?.usable(),
                None => record.target,
            };
            return Ok(Planned {
                plan: Plan { from, to: from, steps: Vec::new() },
                grows_by: Mechanism::VirtioMem,
                local,
                wanted: None,
                warnings: vec![],
            });
        };
        if record.domain.is_some() {
            return Err(wrong_state(format!(
                "'{name}' was started by somebody else: change its memory there"
            )));
        }
        let (machine, _) = self.ground.machines.running(record).await?;
        let now = machine.memory().await.map_err(|error| from_qemu(&error))?;
        let guest = machine.guest_memory().await.map_err(|error| from_qemu(&error))?;
        let device = now.virtio_mem_of(&machine.driver().device_id(VIRTIO_MEM_ID));
        let grows_by = if device.is_some() { Mechanism::VirtioMem } else { Mechanism::Dimm };
        let hotplug = match device {
            Some(device) => Some(Hotplug {
                plugged: device.plugged,
                requested: device.requested,
                // The device may be larger, to be of whole blocks of the guest's.
                capacity: device.max.min(Bytes(record.memory_max().0.saturating_sub(now.boot.0))),
                block: device.block,
            }),
            None => {
                let (dimms, plugged) = (Dimms::of(&record.spec), now.in_dimms());
                let (capacity, block) = (dimms.capacity(), dimms.unit);
                (dimms.slots > 0).then_some(Hotplug { plugged, requested: plugged, capacity, block })
            }
        };
        let ballooned = now.balloon.map(|_| now.ballooned());
        // The balloon counts as used in the guest's numbers: with deflate-on-oom its kernel does not deduct it.
        let guest_used = guest.and_then(|guest| {
            // A kernel's estimate of what is available deducts reserves that shrink with the guest; what is free it has.
            let spare = guest.available.max(guest.free)?;
            let used = guest.total?.0.checked_sub(spare.0)?;
            Some(Bytes(used.saturating_sub(ballooned.unwrap_or_default().0)))
        });
        let state = MemoryState { base: now.boot, hotplug, ballooned, guest_used };
        let room = Room {
            far_free: self.ground.far_free(record, state.size()).await?,
            host_free: if record.spec.local.is_some() { Bytes(u64::MAX) } else { host::memory().available },
            restart: request.restart,
        };
        let plan = resize::plan(&state, wanted, room).map_err(|refusal| refused(name, &refusal))?;
        let mut warnings = Vec::new();
        if guest_used.is_none() {
            warnings.push(
                "the guest does not say how much it uses: whether it can give memory is not known".to_owned(),
            );
        }
        Ok(Planned { plan, grows_by, local, wanted: Some(wanted), warnings })
    }

    fn plan_local(
        &self,
        record: &VmRecord,
        request: ResizeRequest,
    ) -> Result<Option<(Bytes, Bytes)>, Problem> {
        let Some(to) = request.local else { return Ok(None) };
        let Some(from) = record.spec.local else {
            return Err(wrong_state(format!(
                "'{}' has no far memory, so no local limit: it was made without --local",
                record.name()
            )));
        };
        let pool = self.pool();
        if to > pool {
            let detail = format!("this brick has {pool} for virtual machines: take a smaller local limit");
            return Err(Problem::new(ProblemType::Capacity, detail));
        }
        Ok((from != to).then_some((from, to)))
    }
}

/// What a resize comes to.
pub(crate) struct Planned {
    plan: Plan,
    /// What a step that plugs or unplugs changes.
    grows_by: Mechanism,
    local: Option<(Bytes, Bytes)>,
    wanted: Option<Bytes>,
    warnings: Vec<String>,
}

impl Planned {
    /// Whether nothing has to be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.plan.steps.is_empty() && self.local.is_none()
    }

    /// As an operation.
    pub(crate) fn work(&self, record: &VmRecord) -> Work {
        let mut steps = Vec::new();
        let limit = self.local.map(|(from, to)| Step::LocalLimit { from, to });
        // More room first, less room last: the guest never waits for memory that it may not have yet.
        let raises = self.local.is_some_and(|(from, to)| to > from);
        steps.extend(limit.clone().filter(|_| raises));
        for step in &self.plan.steps {
            match *step {
                resize::Step::Restart { memory } => steps.extend(restart(record, memory)),
                step => steps.push(Step::Resize(step)),
            }
        }
        if let Some(to) = self.wanted {
            steps.push(Step::Settle { from: record.target, to });
        }
        steps.extend(limit.filter(|_| !raises));
        whole(record.name(), steps)
    }

    fn view(self, name: &VmName) -> ResizePlan {
        let restart = self.plan.steps.iter().any(|step| step.cost().restarts);
        let limit = self.local.map(|(from, to)| ResizeStep {
            mechanism: Mechanism::LocalLimit,
            from,
            to,
            cost: StepCost {
                expected_ms: from.0.saturating_sub(to.0) / BYTES_PER_MS,
                may_stop_short: false,
                effect: "pages beyond the limit leave for the memory servers; the guest goes on meanwhile"
                    .to_owned(),
            },
        });
        let steps = self.plan.steps.iter().map(|step| view(step, self.grows_by)).chain(limit).collect();
        ResizePlan {
            vm: name.clone(),
            from: self.plan.from,
            to: self.plan.to,
            steps,
            restart,
            warnings: self.warnings,
        }
    }
}

/// A restart is made of steps that are there anyway.
fn restart(record: &VmRecord, memory: Bytes) -> Vec<Step> {
    let from = (record.spec.memory, record.spec.memory_max);
    vec![
        Step::ShutDown { patience_s: RESTART_PATIENCE_S },
        Step::EndQemu,
        Step::AwaitPager,
        Step::Reconfigure { from, to: (memory, None) },
        Step::StartQemu,
        Step::AttachFar,
        Step::LetRun,
    ]
}

fn view(step: &resize::Step, grows_by: Mechanism) -> ResizeStep {
    use resize::Step as S;
    let cost = step.cost();
    let (mechanism, from, to) = match *step {
        S::Deflate { from, to } | S::Inflate { from, to } => (Mechanism::Balloon, from, to),
        S::Plug { from, to } | S::Unplug { from, to } => (grows_by, from, to),
        S::Restart { memory } => (Mechanism::Restart, Bytes(0), memory),
    };
    let cost = StepCost {
        expected_ms: cost.expected_ms(from, to),
        may_stop_short: cost.may_be_partial,
        effect: cost.sentence.to_owned(),
    };
    ResizeStep { mechanism, from, to, cost }
}

fn refused(name: &VmName, refusal: &Refusal) -> Problem {
    let kind = match refusal {
        Refusal::FarFull { .. } | Refusal::HostFull { .. } => ProblemType::Capacity,
        Refusal::AboveMaximum { .. } | Refusal::BelowUse { .. } | Refusal::TooSmall { .. } => {
            ProblemType::Invalid
        }
        Refusal::NoDevice => ProblemType::Unsupported,
    };
    Problem::new(kind, format!("'{name}' cannot be resized: {refusal}"))
}
