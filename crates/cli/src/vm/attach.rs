//! `rackmem vm attach`: far memory for a machine that somebody else runs.

use std::process::ExitCode;

use clap::Args;
use rackmem_api::VmName;
use rackmem_api::agent::DomainAttach;
use rackmem_types::{Bytes, ServerAddress};

use super::AgentOptions;
use super::whom::Whom;
use crate::progress::finish;

/// Give far memory to a machine that libvirt or anybody else runs; it runs on
#[derive(Args, Debug)]
pub(crate) struct Attach {
    /// Its name in libvirt or QEMU, or its process id
    pub(crate) domain: String,
    /// How much of it may be in this machine's RAM
    #[arg(long, value_name = "SIZE")]
    pub(crate) local: Bytes,
    /// Its name from now on (default: the domain's own, or pid-N)
    #[arg(long)]
    pub(crate) name: Option<VmName>,
    /// A memory server for its far memory, instead of the agent's; repeat it to stripe over several
    #[arg(long = "memory-server", value_name = "ADDRESS")]
    pub(crate) memory_servers: Vec<ServerAddress>,
}

impl Attach {
    pub(crate) async fn run(&self, agent: &AgentOptions) -> anyhow::Result<ExitCode> {
        let client = agent.changing().await?;
        let request = DomainAttach {
            local: self.local,
            name: self.name.clone(),
            memory_servers: self.memory_servers.clone(),
            attachments: Vec::new(),
        };
        let operation = client.domain_attach(&self.domain, &request).await?;
        let done = format!("{}: attached, local limit {}", operation.target, self.local);
        finish(agent.telling(), &client, operation, &done).await
    }
}
