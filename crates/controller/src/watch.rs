//! The watch: what bricks and switches say of themselves is compared with what is believed, and reality wins; reservations that
//! nobody applied in time end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use rackmem_rack::{Event, Name, Observation, Offer, Rack, Timestamp};
use rackmem_types::Bytes;

use crate::hands::{Hands, Seen, Target};
use crate::ledger::{Ledger, State, now_ms};

/// Bricks that are asked at the same time.
const AT_ONCE: usize = 32;

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
                match state.apply(Event::Expired(id), None) {
                    Ok(()) => {
                        state.plan_take(id);
                        let detail = format!("reservation {id} has expired: nobody applied it in time");
                        ledger.tell(&mut state, "reservation.expired", &id.to_string(), detail, None);
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
pub(crate) async fn look(ledger: Arc<Ledger>, hands: Arc<dyn Hands>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    let mut watch = Watch::default();
    loop {
        ticks.tick().await;
        let (targets, generation) = {
            let state = ledger.lock();
            (targets(&state.rack), state.rack.generation())
        };
        let seen: Vec<_> = stream::iter(targets)
            .map(|target| {
                let hands = Arc::clone(&hands);
                async move {
                    let seen = hands.look(&target).await.ok();
                    (target, seen)
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let kept = {
            let mut state = ledger.lock();
            // What was asked before a plan ended tells nothing about what is believed after it.
            let is_fresh = state.rack.generation() == generation;
            for (target, seen) in seen {
                watch.compare(&ledger, &mut state, &target, seen, is_fresh);
            }
            ledger.keep(state)
        };
        if kept.wait().await.is_err() {
            return;
        }
    }
}

#[derive(Debug, Default)]
struct Watch {
    /// The life in which each memory server was seen last.
    epochs: BTreeMap<Name, u64>,
    /// What was told and is still so.
    told: BTreeMap<Name, BTreeSet<String>>,
}

impl Watch {
    fn compare(
        &mut self,
        ledger: &Ledger,
        state: &mut State,
        target: &Target,
        seen: Option<Seen>,
        fresh: bool,
    ) {
        let (Target::Agent(name, _) | Target::Memory(name, _) | Target::Switch(name, _)) = target;
        let Some(observation) = self.observation(&state.rack, name, target, seen, fresh) else { return };
        // A brick that was removed in the meantime is none of ours.
        let Ok(differences) = state.rack.differences(&observation) else { return };
        let mut told = BTreeSet::new();
        for difference in differences {
            let sentence = difference.to_string();
            let corrected = difference.event().map(|event| state.apply(event, None));
            if let Some(Err(error)) = &corrected {
                tracing::warn!("{sentence}, and the rack cannot be corrected: {error}");
            }
            let is_news = !self.told.get(name).is_some_and(|before| before.contains(&sentence));
            if corrected.is_some() || is_news {
                ledger.tell(state, "rack.difference", name.as_str(), sentence.clone(), None);
            }
            told.insert(sentence);
        }
        if fresh {
            self.told.insert(name.clone(), told);
        }
    }

    fn observation(
        &mut self,
        rack: &Rack,
        name: &Name,
        target: &Target,
        seen: Option<Seen>,
        fresh: bool,
    ) -> Option<Observation> {
        match (target, seen) {
            (Target::Switch(..), None) => None,
            (_, None) => Some(Observation::Silent { brick: name.clone(), off: false }),
            (_, Some(Seen::Segments(segments))) => {
                fresh.then(|| Observation::Compute { brick: name.clone(), segments })
            }
            (_, Some(Seen::Pairs(pairs))) => {
                fresh.then(|| Observation::Switch { switch: name.clone(), pairs })
            }
            (_, Some(Seen::Pool { epoch, pages })) => {
                let before = epoch.and_then(|epoch| self.epochs.insert(name.clone(), epoch));
                // A server that was restarted came back empty.
                let lost = before.is_some() && before != epoch;
                let believed = rack.segments_on(name).ok()?;
                let segments: Vec<_> = believed.map(|segment| (segment.id, segment.pages)).collect();
                let segments = if lost { Vec::new() } else { segments };
                let Offer::Memory { size } = rack.brick(name).ok()?.spec().offers else { return None };
                let size = pages.map_or(size, Bytes::from_pages);
                Some(Observation::Memory { brick: name.clone(), size, segments, others: 0 })
            }
        }
    }
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
