//! What every agent has to do, as cases that run over HTTP against any [`AgentApi`]: the simulated one and the real one
//! pass the same. Nothing here is needed to run an agent, so it is behind the feature `conformance`.
//!
//! Each case brings its own machine and takes it away again, so that an agent that other tests use meanwhile is no
//! problem, except for numbers of the whole brick.

mod attachments;
mod changes;
mod life;
mod memory;
mod watching;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::agent::{AgentApi, AgentClient, Attachment, VmSpec, router};
use crate::error::ApiError;
use crate::name::VmName;
use crate::operation::{Operation, OperationState, WaitQuery};
use crate::problem::ProblemType;
use crate::serve::{Closing, Listen, ServeConfig, Server};

/// An agent that is tried, and what it can be tried with.
#[derive(Clone, Debug)]
pub struct Subject {
    /// How it is asked.
    pub client: AgentClient,
    /// A machine that it can run, with `memory_max` above `memory` and with `local` below it. Each case gives it a
    /// name of its own.
    pub spec: VmSpec,
    /// A physical attachment that it can make, large enough for the far memory of such a machine.
    pub attachment: Attachment,
    /// How long one operation may take.
    pub patience: Duration,
}

/// Why a case failed, as a sentence.
pub type Failure = String;

/// A case: its name and what it does.
pub type Case = (&'static str, for<'a> fn(&'a Subject) -> BoxFuture<'a, Result<(), Failure>>);

macro_rules! cases {
    ($($module:ident::$case:ident),* $(,)?) => {
        /// All cases.
        pub const CASES: &[Case] = &[$((stringify!($case), |subject| Box::pin($module::$case(subject)))),*];
    };
}

cases! {
    life::a_machine_lives,
    life::a_name_is_taken_once,
    life::what_does_not_fit_the_state_is_refused,
    life::what_is_not_there_is_not_found,
    life::a_delete_takes_over_from_a_create,
    life::nonsense_is_refused_and_leaves_nothing,
    changes::older_generations_are_refused,
    changes::a_request_sent_twice_is_done_once,
    changes::what_has_ended_is_not_cancelled,
    changes::a_cancelled_create_leaves_nothing,
    memory::a_plan_changes_nothing,
    memory::a_machine_grows_and_shrinks,
    memory::limits_of_memory_are_kept,
    memory::bounds_are_set_and_ended,
    attachments::physical_and_logical_attach,
    watching::events_are_resumed,
    watching::operations_are_listed,
    watching::a_console_opens,
}

/// Runs all cases one after the other; the answer is what failed, with the name of its case.
pub async fn run(subject: &Subject) -> Vec<(&'static str, Failure)> {
    let mut failed = Vec::new();
    for (name, case) in CASES {
        if let Err(failure) = case(subject).await {
            failed.push((*name, failure));
        }
    }
    failed
}

/// Serves an agent on a Unix socket in `directory`, for as long as what comes back is not closed.
pub fn serve<T: AgentApi>(agent: Arc<T>, directory: &Path) -> Result<(AgentClient, Closing), ApiError> {
    let path = directory.join("conformance.sock");
    let server =
        Server::open(&ServeConfig { listen: vec![Listen::Unix(path.clone())], ..ServeConfig::default() })?;
    let closing = Closing::default();
    tokio::spawn(server.run(router(agent), closing.clone()));
    let client = AgentClient::new(format!("unix:{}", path.display()).parse()?, None, None)?;
    Ok((client, closing))
}

impl Subject {
    /// The client under the generation that is in force.
    async fn client(&self) -> Result<AgentClient, Failure> {
        self.client.clone().under_present().await.map_err(told)
    }

    /// The machine under another name.
    fn spec(&self, name: &str) -> Result<VmSpec, Failure> {
        Ok(VmSpec { name: self.name(name)?, ..self.spec.clone() })
    }

    fn name(&self, name: &str) -> Result<VmName, Failure> {
        name.parse().map_err(|error: crate::NameError| error.to_string())
    }

    /// Waits until an operation has ended.
    async fn ended(&self, client: &AgentClient, operation: &Operation) -> Result<Operation, Failure> {
        let timeout = u32::try_from(self.patience.as_secs()).unwrap_or(u32::MAX).clamp(1, 300);
        let ended = client.operation_wait(operation.id, WaitQuery { timeout }).await.map_err(told)?;
        ensure(ended.state.is_final(), || {
            format!("{} of '{}' is still at '{:?}' after {timeout} s", ended.kind, ended.target, ended.step)
        })?;
        Ok(ended)
    }

    /// Waits until an operation has succeeded.
    async fn done(
        &self,
        client: &AgentClient,
        asked: Result<Operation, ApiError>,
    ) -> Result<Operation, Failure> {
        let ended = self.ended(client, &asked.map_err(told)?).await?;
        ensure(ended.state == OperationState::Done, || {
            format!("{} of '{}' ended as {:?}: {:?}", ended.kind, ended.target, ended.state, ended.error)
        })?;
        ensure(ended.progress == 1.0, || format!("what is done has progress {}", ended.progress))?;
        Ok(ended)
    }

    /// Takes a machine away, whatever state it is in.
    async fn gone(&self, client: &AgentClient, name: &VmName) -> Result<(), Failure> {
        self.done(client, client.vm_delete(name).await).await?;
        refused(client.vm_show(name).await, ProblemType::NotFound)
    }
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn told(error: impl std::fmt::Display) -> Failure {
    error.to_string()
}

/// Whether a request was refused as it should be, with a sentence.
fn refused<T: std::fmt::Debug>(result: Result<T, ApiError>, kind: ProblemType) -> Result<(), Failure> {
    match result {
        Err(ApiError::Problem(problem)) if problem.kind == kind => {
            ensure(problem.status == kind.status() && problem.detail.len() > 10, || {
                format!("a refusal says too little: {problem:?}")
            })
        }
        other => Err(format!("expected the problem {}, got {other:?}", kind.uri())),
    }
}
