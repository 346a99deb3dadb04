//! A rack whose bricks are sets in memory that outlive the controller, and fail when told to.

#![allow(dead_code, reason = "each test needs some of it")]

pub(crate) mod agents;
pub(crate) mod clumsy;
pub(crate) mod pool;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rackmem_api::agent::{AgentClient, VmView};
use rackmem_api::controller::{ControllerApi, RackFile, ReservationNew, Role, Who};
use rackmem_api::operation::{OperationFilter, WaitQuery};
use rackmem_api::problem::ProblemType;
use rackmem_api::{Change, LatencyClass, Operation, Problem};
use rackmem_controller::{
    Call, Controller, ControllerConfig, Errand, Hands, Order, Placed, Seen, Target, Told,
};
use rackmem_rack::{Name, SegmentId, Step};
use rackmem_types::Bytes;

/// The example of the repository: four compute and four memory bricks in two trays.
pub(crate) const RACK: &str = include_str!("../../../../examples/rack-4x4.toml");

/// What bricks and switches have.
#[derive(Debug, Default)]
pub(crate) struct Bricks {
    pub(crate) holds: Mutex<BTreeSet<String>>,
    /// Segments in which pages lie.
    pub(crate) pages: Mutex<BTreeSet<SegmentId>>,
    /// Segments that were removed while pages lay in them.
    pub(crate) lost: Mutex<Vec<SegmentId>>,
    /// Each step is done twice.
    pub(crate) twice: bool,
    /// The step or errand of that number fails, counted from 1.
    pub(crate) fails_at: AtomicUsize,
    pub(crate) steps: AtomicUsize,
}

impl Bricks {
    fn act(&self, step: &Step) {
        let mut holds = self.holds.lock().unwrap();
        match step {
            Step::SegmentCreate { segment, .. } => {
                holds.insert(format!("segment {segment}"));
            }
            Step::SegmentRemove { segment, .. } => {
                if self.pages.lock().unwrap().contains(segment) {
                    self.lost.lock().unwrap().push(*segment);
                }
                holds.remove(&format!("segment {segment}"));
            }
            Step::Connect { switch, pairs } => {
                holds.extend(pairs.iter().map(|pair| format!("circuit {switch} {pair:?}")));
            }
            Step::Disconnect { switch, pairs } => {
                for pair in pairs {
                    holds.remove(&format!("circuit {switch} {pair:?}"));
                }
            }
            Step::NetPortAdd { brick, segment, .. } => {
                holds.insert(format!("entry {brick} {segment}"));
            }
            Step::NetPortRemove { brick, segment, .. } => {
                holds.remove(&format!("entry {brick} {segment}"));
            }
            Step::Attach { segments, .. } => self.pages.lock().unwrap().extend(segments),
            Step::Detach { segments, .. } => {
                self.pages.lock().unwrap().retain(|segment| !segments.contains(segment));
            }
            Step::Migrate { from, to, .. } => {
                let mut pages = self.pages.lock().unwrap();
                pages.retain(|segment| !from.contains(segment));
                pages.extend(to);
            }
            _ => {}
        }
    }

    /// A machine is what it was made from, and each attachment and its size beside it.
    fn act_on_machine(&self, errand: &Errand) -> Told {
        let mut holds = self.holds.lock().unwrap();
        let resized = |vm: &dyn std::fmt::Display| format!("size of {vm} ");
        let elastic = |vm: &dyn std::fmt::Display| format!("elastic {vm} ");
        match errand {
            Errand::Create { spec, .. } => {
                holds.insert(format!("machine {}", spec.name));
            }
            Errand::Delete { spec, .. } => {
                let of = |held: &String| held.split(' ').any(|word| word == spec.name.as_str());
                holds.retain(|held| !of(held));
            }
            Errand::Start { vm, .. } => {
                holds.insert(format!("runs {vm}"));
            }
            Errand::Stop { vm, .. } => {
                holds.remove(&format!("runs {vm}"));
                holds.remove(&format!("paused {vm}"));
            }
            Errand::Pause { vm, .. } => {
                holds.insert(format!("paused {vm}"));
            }
            Errand::Resume { vm, .. } => {
                holds.remove(&format!("paused {vm}"));
            }
            Errand::Elastic { vm, to, .. } => {
                holds.retain(|held| !held.starts_with(&elastic(vm)));
                holds.extend(to.map(|to| elastic(vm) + &format!("{}..{}", to.min, to.max)));
            }
            Errand::Attach { vm, attachments, .. } => {
                holds.extend(attachments.iter().map(|id| format!("attached {vm} {id}")));
            }
            Errand::Detach { vm, attachments, .. } => {
                for id in attachments {
                    holds.remove(&format!("attached {vm} {id}"));
                }
            }
            Errand::Resize { vm, to, .. } => {
                holds.retain(|held| !held.starts_with(&resized(vm)));
                holds.insert(resized(vm) + &to.to_string());
                return Told { size: Some(*to), note: None };
            }
            Errand::Restore { vm, .. } => holds.retain(|held| !held.starts_with(&resized(vm))),
            Errand::Back { of } => {
                drop(holds);
                return self.act_on_machine(of);
            }
        }
        Told::default()
    }

    fn fails(&self) -> Result<(), Problem> {
        // After it was done: the worst that a failure can be.
        if self.steps.fetch_add(1, Ordering::Relaxed) + 1 == self.fails_at.load(Ordering::Relaxed) {
            return Err(Problem::new(ProblemType::Backend, "told to fail"));
        }
        Ok(())
    }

    /// The step or errand that comes as that number from now on fails.
    pub(crate) fn fail_after(&self, number: usize) {
        self.fails_at.store(self.steps.load(Ordering::Relaxed) + number, Ordering::Relaxed);
    }

    pub(crate) fn held(&self) -> usize {
        self.holds.lock().unwrap().len()
    }
}

impl Hands for Bricks {
    fn carry_out<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Option<Placed>, Problem>> {
        Box::pin(async move {
            self.act(&order.step);
            if self.twice {
                self.act(&order.step);
            }
            self.fails().map(|()| None)
        })
    }

    fn errand<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Told, Problem>> {
        Box::pin(async move {
            let mut told = self.act_on_machine(&call.errand);
            if self.twice {
                told = self.act_on_machine(&call.errand);
            }
            self.fails().map(|()| told)
        })
    }

    fn machines<'a>(&'a self, _: &'a Name, _: &'a str) -> BoxFuture<'a, Result<Vec<VmView>, Problem>> {
        Box::pin(std::future::pending())
    }

    fn agent(&self, brick: &Name, _: &str) -> Result<AgentClient, Problem> {
        Err(Problem::new(ProblemType::Unsupported, format!("{brick} is a set in memory and has no agent")))
    }

    fn look<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<Seen, Problem>> {
        Box::pin(std::future::pending())
    }
}

pub(crate) fn who() -> Who {
    Who { name: "test".to_owned(), role: Role::Admin, project: None }
}

/// A controller over `bricks`; with `dies_at` its store stops after so many changes.
pub(crate) async fn start<H: Hands>(state: &Path, hands: &Arc<H>, dies_at: Option<u64>) -> Controller {
    let config =
        ControllerConfig { dies_at, watch_every: Duration::from_secs(3600), ..ControllerConfig::new(state) };
    Controller::start(config, hands.clone()).await.unwrap()
}

pub(crate) async fn change(controller: &Controller) -> Change {
    Change::new(controller.controller().await.unwrap().generation, "test")
}

pub(crate) async fn register(controller: &Controller) {
    register_file(controller, RACK).await;
}

pub(crate) async fn register_file(controller: &Controller, file: &str) {
    let change = change(controller).await;
    controller.rack_register(change, RackFile { file: file.to_owned() }).await.unwrap();
}

pub(crate) fn gib(count: u64, class: LatencyClass) -> ReservationNew {
    ReservationNew::memory(Some("c1".to_owned()), Bytes(count << 30), class)
}

/// The operation when it has ended.
pub(crate) async fn ended(controller: &Controller, operation: &Operation) -> Operation {
    let ended = controller.operation_wait(who(), operation.id, WaitQuery { timeout: 20 }).await.unwrap();
    assert!(ended.state.is_final(), "{ended:?}");
    ended
}

/// Waits until nothing is running.
pub(crate) async fn settled(controller: &Controller) -> Vec<Operation> {
    let operations = controller.operation_list(who(), OperationFilter::default()).await.unwrap();
    for operation in &operations {
        ended(controller, operation).await;
    }
    controller.operation_list(who(), OperationFilter::default()).await.unwrap()
}
