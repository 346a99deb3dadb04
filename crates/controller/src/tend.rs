//! Tending segments: one that no reservation has any more is destroyed as soon as its server answers again, and one that nobody has
//! open is opened for a moment, so that its lease begins anew.

use std::sync::Arc;
use std::time::Duration;

use rackmem_api::{Generation, LatencyClass};
use rackmem_rack::{SegmentId, Step};

use crate::deed::Deed;
use crate::hands::memory::LEASE;
use crate::hands::{Hands, Seen, Target};
use crate::ledger::{Ledger, State};
use crate::order::Order;

/// A lease that is shorter is renewed: days before it ends.
const LEASE_LOW: Duration = Duration::from_secs(LEASE.as_secs() / 2);

/// What is to be done on a memory server that answered.
pub(crate) fn chores(state: &State, reign: Generation, target: &Target, seen: Option<&Seen>) -> Vec<Order> {
    let (Target::Memory(brick, _), Some(Seen::Pool(view))) = (target, seen) else { return Vec::new() };
    let deeds = state.deeds.iter().filter(|(_, deed)| deed.brick == *brick);
    let step = |(segment, deed): (&SegmentId, &Deed)| {
        let (segment, brick) = (*segment, brick.clone());
        let Some(known) = state.rack.segment(segment) else {
            return Some(Step::SegmentRemove { brick, segment, start: 0, pages: 0 });
        };
        let place = deed.place?;
        let listed = view.as_ref().filter(|view| view.epoch == place.epoch)?;
        let listed = listed.segments.iter().find(|listed| listed.id == place.id)?;
        let is_low = listed.lease_left.is_some_and(|left| left < LEASE_LOW);
        // To make it again is to find and open it.
        is_low.then_some(Step::SegmentCreate { brick, segment, start: known.start, pages: known.pages })
    };
    // Who is far away plays no part on a memory server.
    deeds.filter_map(step).map(|step| Order::new(state, reign, LatencyClass::Rack, step)).collect()
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
        (step, Err(error)) => tracing::warn!("{step}: {error}"),
    }
}
