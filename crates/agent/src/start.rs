//! How an agent begins: it opens its store, finds what its predecessor left, and goes on with it.

use std::sync::Arc;

use crate::config::AgentConfig;
use crate::engine::Engine;
use crate::ground::Ground;
use crate::hypervisor::Hypervisor;
use crate::keeper::Keeper;
use crate::machines::Machines;
use crate::mortality::Mortality;
use crate::service::Agent;
use crate::store::{Store, StoreError};

/// Starts an agent. When it returns, it knows all VMs and goes on with its predecessor's operations. QEMU is looked at in
/// the background; what needs it waits.
///
/// `dies_at`, for tests, is the moment at which it ends itself by force: before or after the n-th record of a journal.
pub async fn start(config: AgentConfig, dies_at: Option<u64>) -> Result<Agent, StoreError> {
    let store = Store::open(&config.state).await?;
    let hypervisor = Hypervisor::new(config.qemu.clone(), config.accelerator, &config.state);
    let machines = Machines::new(hypervisor, config.state.clone(), config.libvirt.clone());
    let ground = Ground::new(config, store, machines).await?;
    let engine = Engine::new(Arc::clone(&ground), Mortality::at(dies_at));
    for vm in ground.store.vm_list().await? {
        match ground.machines.find(&vm).await {
            Ok(Some((_, process))) => tracing::info!(vm = %vm.name(), pid = process.pid, "found a machine"),
            Ok(None) => tracing::info!(vm = %vm.name(), "knows a machine that does not run"),
            // It is tried again whenever it is needed.
            Err(problem) => {
                tracing::warn!(vm = %vm.name(), %problem, "a machine that was left cannot be reached")
            }
        }
    }
    for open in ground.store.operations_open().await? {
        engine.carry_on(open)?;
    }
    let agent = Agent::new(Arc::clone(&ground), engine);
    let looked_at = Arc::clone(&ground);
    tokio::spawn(async move {
        if let Err(error) = looked_at.machines.hypervisor().qemu().await {
            tracing::error!(%error, "no machine can be started");
        }
    });
    tokio::spawn(Keeper::new(ground, agent.clone()).run());
    Ok(agent)
}
