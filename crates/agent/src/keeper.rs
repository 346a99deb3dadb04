//! Looks after VMs while nobody asks: notices ends, starts successors of dead pagers, follows guests in elastic mode, and
//! forgets what is old.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rackmem_api::agent::{ElasticDecision, ResizeRequest};
use rackmem_api::problem::ProblemType;
use rackmem_api::{Change, Problem, VmName};
use rackmem_qemu::Machine;
use rackmem_types::Bytes;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::elastic::{Bounds, Decision, Policy, Reason, Sample};
use crate::ground::Ground;
use crate::problem::{from_qemu, from_store};
use crate::servers;
use crate::service::Agent;
use crate::step::last_words;
use crate::store::now_ms;
use crate::vm::{VmRecord, Wanted};

/// Between two rounds: a guest that waits for a dead pager should not wait long, and a round costs one question for each VM.
const ROUND: Duration = Duration::from_secs(1);

/// A pager that could not be succeeded is tried again after so long.
const SUCCEED_AGAIN: Duration = Duration::from_secs(5);

/// Between two times that old events and operations are forgotten.
const TRIM: Duration = Duration::from_secs(600);

/// A machine that has more far memory than its guest can use keeps it for so long: guests that shrink often grow again.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(20);

/// The controller is asked for more for one machine no more often than this: a rack that is full stays so for a while.
const BORROW_AGAIN: Duration = Duration::from_secs(5);

/// Who asks for what the keeper does.
const BY: &str = "elastic";

/// The keeper of one agent.
pub(crate) struct Keeper {
    ground: Arc<Ground>,
    agent: Agent,
    begin: Instant,
    policies: HashMap<VmName, (Bounds, Policy)>,
    failed_successions: HashMap<VmName, Instant>,
    /// When the controller was asked for more for a machine.
    borrowed: HashMap<VmName, Instant>,
    /// Since when machines have had more far memory than they can use.
    roomy: HashMap<VmName, Instant>,
    trimmed: Instant,
}

impl Keeper {
    /// A keeper that has seen nothing yet.
    pub(crate) fn new(ground: Arc<Ground>, agent: Agent) -> Self {
        let begin = Instant::now();
        Self {
            ground,
            agent,
            begin,
            policies: HashMap::new(),
            failed_successions: HashMap::new(),
            borrowed: HashMap::new(),
            roomy: HashMap::new(),
            trimmed: begin,
        }
    }

    /// Goes round for ever.
    pub(crate) async fn run(mut self) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            if let Err(problem) = self.round().await {
                tracing::error!(%problem, "the keeper's round failed");
            }
        }
    }

    async fn round(&mut self) -> Result<(), Problem> {
        let records = self.ground.store.vm_list().await.map_err(from_store)?;
        self.policies.retain(|name, _| records.iter().any(|vm| vm.name() == name && vm.elastic.is_some()));
        for record in &records {
            let busy =
                self.ground.store.operation_running(record.name().as_str()).await.map_err(from_store)?;
            if busy.is_some() {
                continue;
            }
            if let Err(problem) = self.look(record).await {
                tracing::warn!(vm = %record.name(), %problem, "a machine cannot be looked after");
            }
        }
        if self.trimmed.elapsed() > TRIM {
            self.trimmed = Instant::now();
            self.ground.store.events_trim().await.map_err(from_store)?;
            self.ground.store.operations_trim().await.map_err(from_store)?;
        }
        Ok(())
    }

    async fn look(&mut self, record: &VmRecord) -> Result<(), Problem> {
        let Some(process) = record.alive() else { return self.ended(record).await };
        let found = self.ground.machines.find(record).await?;
        if let Some((machine, _)) = &found
            && record.domain.is_none()
            && machine.has_shut_down().await
        {
            return self.shut_down(record, machine.as_ref()).await;
        }
        if record.spec.local.is_some() && !self.ground.pagers.is_up(process.pid).await {
            return self.succeed(record, process.pid).await;
        }
        if let Some((machine, _)) = &found {
            self.give_back(record, machine.as_ref()).await?;
        }
        match (record.elastic, found) {
            (Some(bounds), Some((machine, _))) if record.wanted == Wanted::Running => {
                let bounds = Bounds { min: bounds.min, max: bounds.max };
                self.follow(record, machine.as_ref(), bounds).await
            }
            _ => Ok(()),
        }
    }

    /// Asks the controller for the memory that a machine is to grow by, and does not wait for it: the machine still wants to grow when
    /// it is there.
    async fn borrow(&mut self, record: &VmRecord, to: Bytes, refused: Problem) -> Result<(), Problem> {
        let name = record.name().clone();
        let lender = self.ground.config.lender.clone().filter(|_| !record.spec.attachments.is_empty());
        let Some(lender) = lender else { return Err(refused) };
        if self.borrowed.get(&name).is_some_and(|at| at.elapsed() < BORROW_AGAIN) {
            return Ok(());
        }
        self.borrowed.insert(name.clone(), Instant::now());
        let sentence = format!("far memory for {to} is asked of the controller");
        self.ground.event("elastic.borrow", name.as_str(), &sentence).await;
        let ground = Arc::clone(&self.ground);
        tokio::spawn(async move {
            if let Err(problem) = lender.fit(&name, to).await {
                let sentence = format!("the controller lends no more: {problem}");
                ground.event("elastic.refused", name.as_str(), &sentence).await;
            }
        });
        Ok(())
    }

    /// What the controller lent and the guest cannot use any more goes back, by whole attachments.
    async fn give_back(&mut self, record: &VmRecord, machine: &dyn Machine) -> Result<(), Problem> {
        let Some(lender) = self.ground.config.lender.clone() else { return Ok(()) };
        let name = record.name();
        let sizes = self.ground.lent(record).await?;
        let has: u64 = sizes.iter().sum();
        let size = machine.memory().await.map_err(|error| from_qemu(&error))?.usable().max(record.target);
        let goes = sizes.into_iter().min().is_some_and(|least| has.saturating_sub(least) >= size.0);
        if !goes {
            self.roomy.remove(name);
            return Ok(());
        }
        let since = *self.roomy.entry(name.clone()).or_insert_with(Instant::now);
        if since.elapsed() < GIVE_BACK_AFTER {
            return Ok(());
        }
        // Asked again after the same time if nothing comes of it.
        self.roomy.remove(name);
        let name = name.clone();
        // The controller has this agent take the attachment back, which is an operation that the rounds wait for by themselves.
        tokio::spawn(async move {
            if let Err(problem) = lender.fit(&name, size).await {
                tracing::debug!(vm = %name, %problem, "the controller does not take far memory back now");
            }
        });
        Ok(())
    }

    /// A process that has ended without an operation.
    async fn ended(&mut self, record: &VmRecord) -> Result<(), Problem> {
        let Some(process) = record.process else { return Ok(()) };
        self.ground.machines.forget(record.name());
        let name = record.name();
        if record.domain.is_some() {
            // It was never ours; with its process everything of it is gone.
            self.ground.store.vm_remove(name).await.map_err(from_store)?;
            self.ground.event("domain.ended", name.as_str(), "its process has ended").await;
            return Ok(());
        }
        let was_wanted = record.wanted != Wanted::Stopped;
        let was_switched_off = self.ground.machines.was_switched_off(record, process).await;
        let words = match was_wanted && !was_switched_off {
            true => Some(self.why_ended(record).await),
            false => None,
        };
        let failure = words.clone();
        let noted = self.ground.store.vm_change(name, move |vm| {
            vm.process = None;
            if failure.is_none() {
                vm.wanted = Wanted::Stopped;
            }
            vm.failure = failure;
        });
        noted.await.map_err(from_store)?;
        if let Some(words) = words {
            self.ground.event("vm.failed", name.as_str(), &words).await;
        } else if was_switched_off {
            self.ground.event("vm.stopped", name.as_str(), "the guest has shut down").await;
        }
        Ok(())
    }

    /// What QEMU said last, and which of the machine's memory servers are away: who touches a lost page ends without a word.
    async fn why_ended(&self, record: &VmRecord) -> String {
        let mut words = last_words(&self.ground, record);
        for server in record.memory_servers(&self.ground.config.memory_servers) {
            if let Err(problem) = servers::free(server).await {
                words += "; ";
                words += &problem.detail;
            }
        }
        words
    }

    /// The guest has switched itself off; QEMU still stands.
    async fn shut_down(&self, record: &VmRecord, machine: &dyn Machine) -> Result<(), Problem> {
        machine.stop(Duration::ZERO).await.map_err(|error| from_qemu(&error))?;
        let noted = self.ground.store.vm_change(record.name(), |vm| {
            vm.wanted = Wanted::Stopped;
            vm.process = None;
        });
        noted.await.map_err(from_store)?;
        self.ground.machines.forget(record.name());
        self.ground.event("vm.stopped", record.name().as_str(), "the guest has shut down").await;
        Ok(())
    }

    async fn succeed(&mut self, record: &VmRecord, pid: u32) -> Result<(), Problem> {
        let name = record.name();
        if self.failed_successions.get(name).is_some_and(|at| at.elapsed() < SUCCEED_AGAIN) {
            return Ok(());
        }
        let Some(far) = self.ground.far(record).await? else { return Ok(()) };
        match self.ground.pagers.succeed(pid, &far).await {
            Ok(()) => {
                self.failed_successions.remove(name);
                self.ground
                    .event("pager.succeeded", name.as_str(), "its pager had died; another one goes on")
                    .await;
            }
            Err(problem) => {
                self.failed_successions.insert(name.clone(), Instant::now());
                self.ground.event("pager.down", name.as_str(), &problem.detail).await;
            }
        }
        Ok(())
    }

    async fn follow(
        &mut self,
        record: &VmRecord,
        machine: &dyn Machine,
        bounds: Bounds,
    ) -> Result<(), Problem> {
        let name = record.name();
        if !self.policies.get(name).is_some_and(|(known, _)| *known == bounds) {
            self.policies.insert(name.clone(), (bounds, Policy::new(bounds)));
        }
        let Some(sample) = self.sample(machine).await? else { return Ok(()) };
        let Some((_, policy)) = self.policies.get_mut(name) else { return Ok(()) };
        let (to, reason) = match policy.decide(sample) {
            Decision::Hold(_) => return Ok(()),
            Decision::Grow { to, reason } | Decision::Shrink { to, reason } => (to, reason),
        };
        self.act(record, sample.size, to, reason).await
    }

    async fn sample(&self, machine: &dyn Machine) -> Result<Option<Sample>, Problem> {
        let Some(guest) = machine.guest_memory().await.map_err(|error| from_qemu(&error))? else {
            return Ok(None);
        };
        let now = machine.memory().await.map_err(|error| from_qemu(&error))?;
        let Some(available) = guest.available else { return Ok(None) };
        Ok(Some(Sample {
            at_ms: u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX),
            size: now.usable(),
            available,
            swapped_in: guest.swapped_in.unwrap_or_default(),
            major_faults: guest.major_faults.unwrap_or_default(),
        }))
    }

    /// Begins what was decided, as an operation like any other.
    async fn act(
        &mut self,
        record: &VmRecord,
        from: Bytes,
        to: Bytes,
        reason: Reason,
    ) -> Result<(), Problem> {
        let name = record.name();
        let request = ResizeRequest { memory: Some(to), ..ResizeRequest::default() };
        let planned = match self.agent.plan(record, request).await {
            Err(problem) if problem.kind == ProblemType::Capacity && to > from => {
                return self.borrow(record, to, problem).await;
            }
            planned => planned?,
        };
        if planned.is_empty() {
            return Ok(());
        }
        let verb = if to > from { "grow" } else { "shrink" };
        let sentence = format!("from {from} to {to}: {reason}");
        tracing::info!(vm = %name, %from, %to, %reason, "elastic: {verb}");
        let decision = ElasticDecision { at_ms: now_ms(), from, to, reason: reason.to_string() };
        let generation = self.ground.store.generation().await.map_err(from_store)?;
        let change = Change::new(generation, BY);
        self.agent.begin_resize(&change, record, &planned).await?;
        self.ground.store.vm_change(name, move |vm| vm.decided(decision)).await.map_err(from_store)?;
        self.ground.event(&format!("elastic.{verb}"), name.as_str(), &sentence).await;
        Ok(())
    }
}
