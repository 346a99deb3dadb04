//! Repairs: what a switch or a compute brick should have and has lost is set again, by an operation like any other.
//!
//! A repair runs beside releases. So each step is looked at before it is done, and once more after: what nobody needs any more by
//! then is taken away again. Steps are tried a few times, and repairs of one brick follow each other a few times, not for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use rackmem_api::controller::kind;
use rackmem_api::{Change, LatencyClass, OperationId, OperationState, Problem};
use rackmem_rack::{CircuitId, CircuitState, Event, Name, Observation, Rack, Step, planner};
use tokio::sync::mpsc;

use crate::hands::{Hands, Seen, Target};
use crate::job::{Job, Work};
use crate::ledger::Ledger;
use crate::order::Order;
use crate::overtaken::is_overtaken;
use crate::views::class_of;

/// Repairs of one brick or switch in a row. What does not last then is somebody's intention, and for people to settle.
const IN_A_ROW_MAX: u32 = 5;

/// How often a step is tried.
const TRIES: u32 = 3;

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Begins repairs.
#[derive(Debug)]
pub(crate) struct Repairs {
    queue: mpsc::UnboundedSender<u64>,
    /// The last repair of each, and how many there were in a row.
    last: BTreeMap<Name, (OperationId, u32)>,
}

impl Repairs {
    pub(crate) fn new(queue: mpsc::UnboundedSender<u64>) -> Self {
        Self { queue, last: BTreeMap::new() }
    }

    /// Begins a repair of what lacks something, unless one is under way or there were too many.
    pub(crate) async fn begin(&mut self, ledger: &Ledger, name: &Name, steps: Vec<Step>) {
        if steps.is_empty() {
            self.last.remove(name);
            return;
        }
        let tried = match self.last.get(name) {
            _ if ledger.lock().overtaken.contains(name) => return,
            Some((id, _)) if ledger.lock().is_running(*id) => return,
            Some((_, IN_A_ROW_MAX)) => return,
            Some((_, tried)) => *tried,
            None => 0,
        };
        let change = Change::new(ledger.reign, "controller");
        let target = name.to_string();
        let job = Job::new(Work::Repair(steps), None);
        let begun = ledger.accept(&change, kind::RACK_REPAIR, |state| {
            ledger.room(state, &change.by)?;
            Ok((target, job, OperationState::Running))
        });
        // A full queue is one that the next look may find emptier.
        let Ok((operation, Some(seq))) = begun.await else { return };
        self.last.insert(name.clone(), (operation.id, tried + 1));
        if tried + 1 == IN_A_ROW_MAX {
            let kept = {
                let mut state = ledger.lock();
                let detail = format!(
                    "{name} was repaired {IN_A_ROW_MAX} times and lacks something again: it is left as it is until a look finds it whole"
                );
                ledger.tell(&mut state, "repair.given-up", name.as_str(), detail, None);
                ledger.keep(state)
            };
            // A store that has failed was logged where it did.
            let _ = kept.wait().await;
        }
        // The dispatcher lives as long as the controller.
        let _ = self.queue.send(seq);
    }
}

/// The steps that give a switch or a compute brick what it should have and, by what was seen a moment ago, has not.
pub(crate) fn steps(rack: &Rack, target: &Target, seen: &Seen) -> Vec<Step> {
    match (target, seen) {
        (Target::Switch(switch, _), Seen::Pairs(there)) => {
            let there: Vec<_> = there.iter().copied().map(sorted).collect();
            let lost = standing(rack, switch).map(|(pair, _)| pair).filter(|pair| !there.contains(pair));
            let pairs: Vec<_> = lost.collect();
            if pairs.is_empty() { Vec::new() } else { vec![Step::Connect { switch: switch.clone(), pairs }] }
        }
        (Target::Agent(brick, _), Seen::Table(table)) => {
            let segments = table.iter().map(|entry| entry.segment).collect();
            let seen = Observation::Compute { brick: brick.clone(), segments };
            let differences = rack.differences(&seen).unwrap_or_default();
            differences.iter().filter_map(|difference| planner::enter_again(rack, difference)).collect()
        }
        _ => Vec::new(),
    }
}

/// What circuits that are not being set or ended need of a switch.
fn standing<'a>(rack: &'a Rack, switch: &'a Name) -> impl Iterator<Item = ([u16; 2], CircuitId)> + 'a {
    let circuits = rack.circuits();
    let stand = circuits.filter(|circuit| matches!(circuit.state, CircuitState::Up | CircuitState::Down));
    stand.flat_map(move |circuit| {
        let ours = circuit.path.crossings().filter(move |(of, _)| *of == switch);
        ours.map(|(_, pair)| (sorted(pair), circuit.id))
    })
}

fn sorted([a, b]: [u16; 2]) -> [u16; 2] {
    [a.min(b), a.max(b)]
}

/// Carries a repair out.
pub(crate) async fn carry_out(
    ledger: &Ledger,
    hands: &dyn Hands,
    seq: u64,
    steps: &[Step],
) -> Result<(), Problem> {
    let mut failure = None;
    for (at, step) in steps.iter().enumerate() {
        let (order, kept) = {
            let mut state = ledger.lock();
            let Some(step) = still_needed(&state.rack, step) else { continue };
            let Some(entry) = state.operations.get_mut(&seq) else { return Ok(()) };
            entry.job.begun = at + 1;
            entry.operation.step = Some(step.to_string());
            entry.operation.progress = at as f64 / steps.len() as f64;
            state.save_begun(seq);
            let class = class(&state.rack, &step);
            (Order::new(&state, ledger.reign, class, step), ledger.keep(state))
        };
        kept.wait().await?;
        if let Err(problem) = attempt(hands, &order).await {
            failure = Some(match is_overtaken(&problem) {
                true => ledger.overtaken(&mut ledger.lock(), order.asked(), problem),
                false => problem,
            });
            break;
        }
        let back = {
            let state = ledger.lock();
            let back = unneeded(&state.rack, &order.step);
            back.map(|step| Order::new(&state, ledger.reign, order.class, step))
        };
        if let Some(back) = back {
            failure = attempt(hands, &back).await.err();
        }
    }
    let kept = {
        let mut state = ledger.lock();
        let mended = if failure.is_none() { mended(&state.rack, steps) } else { Vec::new() };
        for circuit in mended {
            // Should it have ended in the meantime, there is nothing to be told of it.
            let _ = state.apply(Event::CircuitSeen { circuit, up: true }, Some(seq));
        }
        let how = if failure.is_none() { OperationState::Done } else { OperationState::Failed };
        ledger.end(&mut state, seq, how, failure);
        ledger.keep(state)
    };
    kept.wait().await
}

async fn attempt(hands: &dyn Hands, order: &Order) -> Result<(), Problem> {
    let mut tried = 1;
    loop {
        match hands.carry_out(order).await {
            Ok(_) => return Ok(()),
            Err(problem) if tried == TRIES || is_overtaken(&problem) => return Err(problem),
            Err(_) => tried += 1,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The step, or what of it is needed at this moment.
fn still_needed(rack: &Rack, step: &Step) -> Option<Step> {
    match step {
        Step::Connect { switch, pairs } => {
            let needs = |pair: &[u16; 2]| standing(rack, switch).any(|(standing, _)| standing == *pair);
            let pairs: Vec<_> = pairs.iter().copied().filter(needs).collect();
            (!pairs.is_empty()).then(|| Step::Connect { switch: switch.clone(), pairs })
        }
        Step::NetPortAdd { brick, segment, .. } => is_mapped(rack, brick, *segment).then(|| step.clone()),
        _ => None,
    }
}

/// The way back of a step that was done when nobody needed it any more.
fn unneeded(rack: &Rack, step: &Step) -> Option<Step> {
    match step {
        Step::Connect { switch, pairs } => {
            let has = |pair: &[u16; 2]| {
                let mut crossings = rack.circuits().flat_map(|circuit| circuit.path.crossings());
                crossings.any(|(of, crossed)| of == switch && sorted(crossed) == *pair)
            };
            let pairs: Vec<_> = pairs.iter().copied().filter(|pair| !has(pair)).collect();
            (!pairs.is_empty()).then(|| Step::Disconnect { switch: switch.clone(), pairs })
        }
        Step::NetPortAdd { brick, server, segment, entry } if !is_mapped(rack, brick, *segment) => {
            let (brick, server, segment, entry) = (brick.clone(), server.clone(), *segment, *entry);
            Some(Step::NetPortRemove { brick, server, segment, entry })
        }
        _ => None,
    }
}

fn is_mapped(rack: &Rack, brick: &Name, segment: rackmem_rack::SegmentId) -> bool {
    let users = rack.segment(segment).into_iter().flat_map(|segment| &segment.users);
    users.filter_map(|user| rack.reservation(*user).ok()).any(|reservation| reservation.compute == *brick)
}

fn class(rack: &Rack, step: &Step) -> LatencyClass {
    let Step::NetPortAdd { brick, segment, .. } = step else { return LatencyClass::Rack };
    let users = rack.segment(*segment).into_iter().flat_map(|segment| &segment.users);
    let mut users = users.filter_map(|user| rack.reservation(*user).ok());
    let of = users.find(|reservation| reservation.compute == *brick);
    of.map_or(LatencyClass::Rack, |reservation| class_of(reservation.request.class))
}

/// The circuits that were down and that these steps have set.
fn mended(rack: &Rack, steps: &[Step]) -> Vec<CircuitId> {
    let mut mended = Vec::new();
    for step in steps {
        let Step::Connect { switch, pairs } = step else { continue };
        let ours = standing(rack, switch).filter(|(pair, _)| pairs.contains(pair));
        mended.extend(ours.map(|(_, circuit)| circuit));
    }
    let is_down = |id: &CircuitId| rack.circuit(*id).is_some_and(|one| one.state == CircuitState::Down);
    mended.retain(is_down);
    mended
}
