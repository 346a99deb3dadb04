//! How an agent begins: it opens its store, asks QEMU what it offers, finds what its predecessor left, and goes on.

use std::sync::Arc;

use rackmem_qemu::{Qemu, QemuError};

use crate::config::AgentConfig;
use crate::engine::Engine;
use crate::ground::Ground;
use crate::keeper::Keeper;
use crate::machines::Machines;
use crate::mortality::Mortality;
use crate::service::Agent;
use crate::store::{Store, StoreError};

/// Why an agent cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its QEMU.
    #[error(transparent)]
    Qemu(#[from] QemuError),
}

/// Starts an agent. Open operations of its predecessor are under way when it returns, and it knows all VMs.
///
/// `dies_at`, for tests, is the moment at which it ends itself by force: before or after the n-th record of a journal.
pub async fn start(config: AgentConfig, dies_at: Option<u64>) -> Result<Agent, AgentError> {
    let store = Store::open(&config.state).await?;
    let qemu = Qemu::probe(&config.qemu).await?;
    tracing::info!(version = qemu.capabilities.version_text(), accelerator = ?qemu.accelerator.kind, "{}", qemu.accelerator.reason);
    let machines = Machines::new(qemu, config.state.clone());
    let ground = Ground::new(config, store, machines).await?;
    let engine = Engine::new(Arc::clone(&ground), Mortality::at(dies_at));
    for vm in ground.store.vm_list().await? {
        // One that cannot be reached now is tried again whenever it is needed.
        if let Err(problem) = ground.machines.find(&vm).await {
            tracing::warn!(vm = %vm.name(), %problem, "a machine that was left cannot be reached");
        }
    }
    for open in ground.store.operations_open().await? {
        engine.carry_on(open)?;
    }
    let agent = Agent::new(Arc::clone(&ground), engine);
    tokio::spawn(Keeper::new(ground, agent.clone()).run());
    Ok(agent)
}
