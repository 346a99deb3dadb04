//! Tending: an entry in an agent's table whose reservation has ended is removed; a segment that no reservation has any more is destroyed as soon as its server answers again, and one that nobody has
//! open is opened for a moment, so that its lease begins anew.

use std::sync::Arc;
use std::time::Duration;

use rackmem_api::{Generation, LatencyClass};
use rackmem_far::PoolView;
use rackmem_rack::{Name, NetPort, SegmentId, Step};

use crate::deed::Deed;
use crate::hands::memory::LEASE;
use crate::hands::{Hands, Seen, TableEntry, Target};
use crate::ledger::{Ledger, State};
use crate::order::Order;

/// A lease that is shorter is renewed: days before it ends.
const LEASE_LOW: Duration = Duration::from_secs(LEASE.as_secs() / 2);

/// What is to be done on a brick that answered.
pub(crate) fn chores(state: &State, reign: Generation, target: &Target, seen: Option<&Seen>) -> Vec<Order> {
    // Who is far away plays no part where something is taken away or made.
    let order = |step| Order::new(state, reign, LatencyClass::Rack, step);
    match (target, seen) {
        (Target::Agent(brick, _), Some(Seen::Table(table))) => {
            left_behind(state, brick, table).map(order).collect()
        }
        (Target::Memory(brick, _), Some(Seen::Pool(view))) => {
            segments(state, brick, view.as_ref()).map(order).collect()
        }
        _ => Vec::new(),
    }
}

/// Entries of reservations that have ended while their agent was away.
fn left_behind<'a>(
    state: &'a State,
    brick: &'a Name,
    table: &'a [TableEntry],
) -> impl Iterator<Item = Step> + 'a {
    let is_over = |entry: &&TableEntry| {
        !state.overtaken.contains(brick)
            && state.was_reserved(entry.segment.reservation())
            && state.rack.segment(entry.segment).is_none()
    };
    table.iter().filter(is_over).map(|entry| {
        // Nobody knows any more where it led, and nobody has to.
        let nowhere = NetPort { start: 0, end: 0, port: 0, offset: 0 };
        Step::NetPortRemove {
            brick: brick.clone(),
            server: brick.clone(),
            segment: entry.segment,
            entry: nowhere,
        }
    })
}

fn segments<'a>(
    state: &'a State,
    brick: &'a Name,
    view: Option<&'a PoolView>,
) -> impl Iterator<Item = Step> + 'a {
    let deeds = state.deeds.iter().filter(|(_, deed)| deed.brick == *brick);
    let step = move |(segment, deed): (&SegmentId, &Deed)| {
        let (segment, brick) = (*segment, brick.clone());
        let Some(known) = state.rack.segment(segment) else {
            return Some(Step::SegmentRemove { brick, segment, start: 0, pages: 0 });
        };
        let place = deed.place?;
        let listed = view.filter(|view| view.epoch == place.epoch)?;
        let listed = listed.segments.iter().find(|listed| listed.id == place.id)?;
        let is_low = listed.lease_left.is_some_and(|left| left < LEASE_LOW);
        // To make it again is to find and open it.
        is_low.then_some(Step::SegmentCreate { brick, segment, start: known.start, pages: known.pages })
    };
    deeds.filter_map(step)
}

/// Does one of them. What fails is found again by the next look.
pub(crate) async fn carry_out(ledger: &Ledger, hands: &Arc<dyn Hands>, order: &Order) {
    match (&order.step, hands.carry_out(order).await) {
        (Step::SegmentRemove { segment, brick, .. }, Ok(_)) => {
            let kept = {
                let mut state = ledger.lock();
                state.deed_end(*segment);
                let detail =
                    format!("segment {segment}, which nobody reserves any more, is gone from {brick}");
                ledger.tell(&mut state, "segment.removed", brick.as_str(), detail, None);
                ledger.keep(state)
            };
            // A store that has failed was logged where it did.
            let _ = kept.wait().await;
        }
        (_, Ok(_)) => {}
        // A machine that nobody here knows may have it: it was told as a difference.
        (step @ Step::NetPortRemove { .. }, Err(error)) => tracing::debug!("{step}: {error}"),
        (step, Err(error)) => tracing::warn!("{step}: {error}"),
    }
}
