//! How an agent begins: it opens its store, finds what its predecessor left, and goes on with it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::AgentConfig;
use crate::engine::Engine;
use crate::ground::Ground;
use crate::hypervisor::Hypervisor;
use crate::keeper::Keeper;
use crate::machines::Machines;
use crate::mortality::Mortality;
use crate::service::Agent;
use crate::store::{Store, StoreError};

/// Machines that were left are looked for this long before the agent serves: QEMU greets in milliseconds, unless it is busy.
const FIND_MAX: Duration = Duration::from_secs(3);

/// Starts an agent. When it returns, it knows all VMs whose QEMU answers, and goes on with its predecessor's operations. QEMU is looked at in
/// the background; what needs it waits.
///
/// `dies_at`, for tests, is the moment at which it ends itself by force: before or after the n-th record of a journal.
pub async fn start(config: AgentConfig, dies_at: Option<u64>) -> Result<Agent, StoreError> {
    let store = Store::open(&config.state).await?;
    let hypervisor = Hypervisor::new(config.qemu.clone(), config.accelerator, &config.state);
    let machines = Machines::new(hypervisor, config.state.clone(), config.libvirt.clone());
    let ground = Ground::new(config, store, machines).await?;
    let engine = Engine::new(Arc::clone(&ground), Mortality::at(dies_at));
    find(&ground).await?;
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

/// Finds the machines that were left. Those whose QEMU does not answer at once are found later, by whoever needs them.
async fn find(ground: &Arc<Ground>) -> Result<(), StoreError> {
    let mut finding = JoinSet::new();
    for vm in ground.store.vm_list().await? {
        let ground = Arc::clone(ground);
        finding.spawn(async move {
            match ground.machines.find(&vm).await {
                Ok(Some((_, process))) => {
                    tracing::info!(vm = %vm.name(), pid = process.pid, "found a machine")
                }
                Ok(None) => tracing::info!(vm = %vm.name(), "knows a machine that does not run"),
                // It is tried again whenever it is needed.
                Err(problem) => {
                    tracing::warn!(vm = %vm.name(), %problem, "a machine that was left cannot be reached")
                }
            }
        });
    }
    let found = async { while finding.join_next().await.is_some() {} };
    if timeout(FIND_MAX, found).await.is_err() {
        tracing::warn!(machines = finding.len(), "machines that were left do not answer yet");
        finding.detach_all();
    }
    Ok(())
}
