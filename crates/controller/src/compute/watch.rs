//! What agents say of the machines is compared with the books, and the agents are right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use rackmem_api::VmName;
use rackmem_api::agent::{ElasticBounds, VmState, VmView};
use rackmem_api::controller::MachineState;
use rackmem_rack::Name;

use super::Machine;
use crate::hands::Hands;
use crate::ledger::{Ledger, State};
use crate::watch::{AT_ONCE, LOOK_MAX};

/// Looks at all machines that nothing is changing, for ever.
pub(crate) async fn look(ledger: Arc<Ledger>, hands: Arc<dyn Hands>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        let asked = questions(&ledger.lock());
        let seen: Vec<_> = stream::iter(asked)
            .map(|((brick, address), machines)| {
                let hands = Arc::clone(&hands);
                async move {
                    let views = tokio::time::timeout(LOOK_MAX, hands.machines(&brick, &address)).await;
                    (views.ok().and_then(Result::ok), brick, machines)
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let kept = {
            let mut state = ledger.lock();
            for (views, brick, machines) in seen {
                // A brick that does not answer is told of by the rack's watch.
                let Some(views) = views else { continue };
                for (name, version) in machines {
                    compare(&ledger, &mut state, &brick, &name, version, &views);
                }
            }
            if !state.is_changed() {
                continue;
            }
            ledger.keep(state)
        };
        if kept.wait().await.is_err() {
            return;
        }
    }
}

/// Whom to ask for which machines, each in the version that it has.
fn questions(state: &State) -> BTreeMap<(Name, String), Vec<(VmName, u64)>> {
    let mut asked: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for machine in state.machines.all().filter(|machine| machine.operation.is_none()) {
        let Some(brick) = state.machine_brick(machine) else { continue };
        let Some(address) = brick.spec().address.clone() else { continue };
        let place = (brick.name().clone(), address);
        asked.entry(place).or_default().push((machine.new.name.clone(), machine.version));
    }
    asked
}

fn compare(ledger: &Ledger, state: &mut State, brick: &Name, name: &VmName, version: u64, views: &[VmView]) {
    let Some(machine) = state.machines.get(name).filter(|machine| machine.version == version) else { return };
    let view = views.iter().find(|view| view.name == *name);
    let Some((is, reason)) = seen(brick, view) else { return };
    let follows = view.map(|view| view.elastic.as_ref().map(|elastic| elastic.bounds));
    let Machine { state: believed, reason: known, elastic, .. } = machine;
    let follows = follows.filter(|follows| follows != elastic);
    let project = Some(machine.project.clone());
    if (*believed, known) != (is, &reason) {
        let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let detail = format!("'{name}' on {brick} is {}{why}", word(is));
        state.machine_seen(name, is, reason);
        ledger.tell_of(state, project.clone(), "vm.difference", name.as_str(), detail, None);
    }
    if let Some(bounds) = follows {
        let how = match bounds {
            Some(ElasticBounds { min, max }) => format!("follows its guest from {min} to {max}"),
            None => "does not follow its guest".to_owned(),
        };
        state.machine_follows(name, bounds);
        let detail = format!("'{name}' on {brick} {how}");
        ledger.tell_of(state, project, "vm.difference", name.as_str(), detail, None);
    }
}

/// What an agent says of a machine; nothing while it is changing it.
fn seen(brick: &Name, view: Option<&VmView>) -> Option<(MachineState, Option<String>)> {
    let Some(view) = view else {
        let reason = format!("{brick} does not have it any more; delete it to release what it has reserved");
        return Some((MachineState::Failed, Some(reason)));
    };
    match view.state {
        VmState::Creating | VmState::Deleting => None,
        _ if view.operation.is_some() => None,
        VmState::Running | VmState::Waiting => Some((MachineState::Running, None)),
        VmState::Paused => Some((MachineState::Paused, None)),
        VmState::Stopped => Some((MachineState::Stopped, None)),
        VmState::Failed => Some((MachineState::Failed, view.reason.clone())),
    }
}

fn word(state: MachineState) -> &'static str {
    match state {
        MachineState::Creating => "being made",
        MachineState::Running => "running",
        MachineState::Paused => "paused",
        MachineState::Stopped => "stopped",
        MachineState::Failed => "failed",
        MachineState::Deleting => "being deleted",
    }
}
