//! Changes that need no more than a name; and what all changes have in common: they are waited for and told.

use std::process::ExitCode;

use clap::Args;
use rackmem_api::agent::StopRequest;
use rackmem_api::{ApiError, Operation, VmName};

use super::whom::Whom;
use crate::progress;

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
    pub(crate) async fn run(&self, whom: &impl Whom) -> anyhow::Result<ExitCode> {
        let how = StopRequest { force: self.force, timeout_s: Some(self.timeout) };
        change(whom, "stopped", &self.name, async |client, name| client.vm_stop(name, how).await).await
    }
}

/// Asks for a change of the machine and tells how it went.
pub(crate) async fn change<W: Whom>(
    whom: &W,
    done: &str,
    vm: &VmName,
    ask: impl AsyncFn(&W::Client, &VmName) -> Result<Operation, ApiError>,
) -> anyhow::Result<ExitCode> {
    let client = whom.changing().await?;
    let operation = ask(&client, vm).await?;
    progress::finish(whom.telling(), &client, operation, &format!("{vm}: {done}")).await
}
