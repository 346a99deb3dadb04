//! The watch: what bricks and switches say of themselves is compared with what is believed, and reality wins; reservations that
//! nobody applied in time end; segments that nobody needs any more, or that nobody has open, are tended.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use rackmem_api::Problem;
use rackmem_api::problem::ProblemType;
use rackmem_rack::{Event, Offer, Rack, Timestamp};

use crate::hands::{Hands, Target};
use crate::ledger::{Ledger, now_ms};
use crate::reality::Reality;
use crate::repair::{self, Repairs};
use crate::tend;

/// Bricks that are asked at the same time.
pub(crate) const AT_ONCE: usize = 256;

/// Who has not answered by then does not: others are not to be seen later because of it.
pub(crate) const LOOK_MAX: Duration = Duration::from_secs(4);

/// How often expiries are looked at: they are given in seconds.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// Lets reservations expire, for ever.
pub(crate) async fn expire(ledger: Arc<Ledger>) {
    let mut ticks = tokio::time::interval(EXPIRE_EVERY);
    loop {
        ticks.tick().await;
        let kept = {
            let mut state = ledger.lock();
            let due: Vec<_> = state.rack.due(Timestamp(now_ms())).collect();
            if due.is_empty() {
                continue;
            }
            for id in due {
                let project = state.rack.reservation(id).ok().map(|of| of.request.project.clone());
                match state.apply(Event::Expired(id), None) {
                    Ok(()) => {
                        state.plan_take(id);
                        let detail = format!("reservation {id} has expired: nobody applied it in time");
                        let target = id.to_string();
                        ledger.tell_of(&mut state, project, "reservation.expired", &target, detail, None);
                    }
                    // It is the last user of a circuit: it stays until somebody releases it.
                    Err(error) => tracing::debug!("reservation {id} cannot expire: {error}"),
                }
            }
            ledger.keep(state)
        };
        if kept.wait().await.is_err() {
            return;
        }
    }
}

/// Looks at everything with an address, for ever.
pub(crate) async fn look(ledger: Arc<Ledger>, hands: Arc<dyn Hands>, mut repairs: Repairs, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    let mut reality = Reality::default();
    loop {
        ticks.tick().await;
        let targets = targets(&ledger.lock().rack);
        let mut looks = stream::iter(targets)
            .map(|target| {
                let (ledger, hands) = (Arc::clone(&ledger), Arc::clone(&hands));
                async move {
                    let generation = ledger.lock().rack.generation();
                    let seen = tokio::time::timeout(LOOK_MAX, hands.look(&target)).await;
                    let seen = seen.unwrap_or_else(|_| Err(too_late()));
                    (target, generation, seen)
                }
            })
            .buffer_unordered(AT_ONCE);
        let mut chores = Vec::new();
        while let Some((target, generation, seen)) = looks.next().await {
            let (lacks, kept) = {
                let mut state = ledger.lock();
                // What was asked before a plan ended tells nothing about what is believed after it.
                let is_fresh = state.rack.generation() == generation;
                chores.extend(tend::chores(&state, ledger.reign, &target, seen.as_ref().ok()));
                let lacks = seen.as_ref().ok().filter(|_| is_fresh);
                let lacks = lacks.map(|seen| repair::steps(&state.rack, &target, seen));
                reality.compare(&ledger, &mut state, &target, seen, is_fresh);
                (lacks, ledger.keep(state))
            };
            if kept.wait().await.is_err() {
                return;
            }
            if let Some(lacks) = lacks {
                repairs.begin(&ledger, target.name(), lacks).await;
            }
        }
        for order in chores {
            tend::carry_out(&ledger, &hands, &order).await;
        }
    }
}

fn too_late() -> Problem {
    let seconds = LOOK_MAX.as_secs();
    Problem::new(
        ProblemType::Timeout,
        format!("nothing came within {seconds} s; is it stopped, or a firewall in between?"),
    )
}

fn targets(rack: &Rack) -> Vec<Target> {
    let bricks = rack.bricks().filter_map(|brick| {
        let (name, address) = (brick.name().clone(), brick.spec().address.clone()?);
        match brick.spec().offers {
            Offer::Compute { .. } => Some(Target::Agent(name, address)),
            Offer::Memory { .. } => Some(Target::Memory(name, address)),
            Offer::Accelerator { .. } => None,
        }
    });
    let switches = rack.switches().filter_map(|switch| {
        Some(Target::Switch(switch.spec().name.clone(), switch.spec().address.clone()?))
    });
    bricks.chain(switches).collect()
}
