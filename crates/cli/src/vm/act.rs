//! Changes that need no more than a name; and what all changes have in common: they are waited for and told.

use std::process::ExitCode;

use clap::Args;
use rackmem_api::agent::{AgentClient, StopRequest};
use rackmem_api::{ApiError, Operation, VmName};

use super::AgentOptions;
use crate::progress::{self, Telling};

#[derive(Args, Debug)]
pub(crate) struct Name {
    /// Name of the machine
    pub(crate) name: VmName,
}

/// Stop a machine: its guest is asked to shut down
#[derive(Args, Debug)]
pub(crate) struct Stop {
    /// Name of the machine
    pub(crate) name: VmName,
    /// Turn it off without asking the guest
    #[arg(long)]
    pub(crate) force: bool,
    /// Give the guest so long to shut down
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) timeout: u32,
}

impl Stop {
    pub(crate) async fn run(&self, agent: &AgentOptions) -> anyhow::Result<ExitCode> {
        let client = agent.changing().await?;
        let how = StopRequest { force: self.force, timeout_s: Some(self.timeout) };
        let operation = client.vm_stop(&self.name, how).await?;
        finish(agent, &client, operation, &format!("{}: stopped", self.name)).await
    }
}

/// Asks for a change of the machine and tells how it went.
pub(crate) async fn change(
    agent: &AgentOptions,
    done: &str,
    vm: &Name,
    ask: impl AsyncFn(&AgentClient, &VmName) -> Result<Operation, ApiError>,
) -> anyhow::Result<ExitCode> {
    let client = agent.changing().await?;
    let operation = ask(&client, &vm.name).await?;
    finish(agent, &client, operation, &format!("{}: {done}", vm.name)).await
}

/// Waits for the operation's end, unless it is not to be waited for, and tells of it.
pub(crate) async fn finish(
    agent: &AgentOptions,
    client: &AgentClient,
    operation: Operation,
    done: &str,
) -> anyhow::Result<ExitCode> {
    let telling = Telling { json: agent.json, no_wait: agent.no_wait };
    progress::finish(telling, client, operation, done).await
}
