//! What bricks and switches say of themselves against what is believed: each difference is told once, and reality wins.

use std::collections::{BTreeMap, BTreeSet};

use rackmem_api::Problem;
use rackmem_far::PoolView;
use rackmem_rack::{Difference, Name, Observation, Offer, Power, Rack, SegmentId};
use rackmem_types::Bytes;

use crate::deed::Deed;
use crate::hands::{Seen, TableEntry, Target, attachment_of};
use crate::ledger::{Ledger, State};

/// Characters of a reason that are told.
const REASON_MAX: usize = 500;

/// What was told so far.
#[derive(Debug, Default)]
pub(crate) struct Reality {
    /// What was told and is still so.
    told: BTreeMap<Name, BTreeSet<String>>,
    /// What compute bricks do not reach, and why, as it was told last.
    unreached: BTreeMap<Name, BTreeMap<SegmentId, String>>,
    /// Why those that do not answer do not, as it was told last.
    silent: BTreeMap<Name, String>,
}

impl Reality {
    /// Tells how `seen` differs from what is believed, and lets the rack believe it. Unless it is fresh, operations have ended since
    /// the look, and it tells no more than whether somebody answered.
    pub(crate) fn compare(
        &mut self,
        ledger: &Ledger,
        state: &mut State,
        target: &Target,
        seen: Result<Seen, Problem>,
        fresh: bool,
    ) {
        let name = target.name();
        let seen = match seen {
            Ok(seen) => {
                self.silent.remove(name);
                Some(seen)
            }
            Err(problem) => {
                self.tell_silent(ledger, state, target, &problem.detail);
                None
            }
        };
        if let (Some(Seen::Table(table)), true) = (&seen, fresh) {
            self.tell_reach(ledger, state, name, table);
        }
        let Some(observation) = observation(state, target, seen, fresh) else { return };
        // A brick that was removed in the meantime is none of ours.
        let Ok(differences) = state.rack.differences(&observation) else { return };
        let mut told = BTreeSet::new();
        for difference in differences {
            let sentence = difference.to_string();
            let corrected = difference.event().map(|event| state.apply(event, None));
            if let Some(Err(error)) = &corrected {
                tracing::warn!("{sentence}, and the rack cannot be corrected: {error}");
            }
            // That somebody does not answer was told with the reason.
            let is_told = matches!(difference, Difference::Silent(_));
            if !is_told && (corrected.is_some() || self.is_news(name, &sentence)) {
                ledger.tell(state, "rack.difference", name.as_str(), sentence.clone(), None);
            }
            told.insert(sentence);
        }
        if fresh {
            self.told.insert(name.clone(), told);
        }
    }

    /// Tells that somebody does not answer, and why: once, and again when the reason is another one.
    fn tell_silent(&mut self, ledger: &Ledger, state: &mut State, target: &Target, reason: &str) {
        let name = target.name();
        // Words of the other side may be long.
        let reason: String = reason.chars().take(REASON_MAX).collect();
        let is_other = self.silent.get(name) != Some(&reason);
        let is_news = match (target, state.rack.brick(name)) {
            (Target::Switch(..), _) => is_other && state.rack.switch(name).is_ok(),
            // One that is off cannot answer.
            (_, Ok(brick)) => brick.power() == Power::On && (brick.is_reachable() || is_other),
            (_, Err(_)) => false,
        };
        if is_news {
            let sentence = format!("{name} does not answer: {reason}");
            tracing::warn!("{sentence}");
            ledger.tell(state, "rack.difference", name.as_str(), sentence, None);
            self.silent.insert(name.clone(), reason);
        }
    }

    fn is_news(&self, name: &Name, sentence: &String) -> bool {
        !self.told.get(name).is_some_and(|before| before.contains(sentence))
    }

    /// Tells which memory servers an agent does not reach, because a circuit was lost or the server is gone, and which it reaches again.
    fn tell_reach(&mut self, ledger: &Ledger, state: &mut State, brick: &Name, table: &[TableEntry]) {
        let unreached = |entry: &TableEntry| Some((entry.segment, entry.unreachable.clone()?));
        let now: BTreeMap<_, _> = table.iter().filter_map(unreached).collect();
        let before = self.unreached.insert(brick.clone(), now.clone()).unwrap_or_default();
        for (segment, reason) in now.iter().filter(|(segment, reason)| before.get(segment) != Some(reason)) {
            let Some(server) = state.rack.segment(*segment).map(|segment| segment.brick.clone()) else {
                continue;
            };
            let sentence = format!("{brick} does not reach segment {segment} on {server}: {reason}");
            ledger.tell(state, "attachment.unreachable", brick.as_str(), sentence, None);
        }
        let is_there = |segment: &SegmentId| table.iter().any(|entry| entry.segment == *segment);
        for segment in before.keys().filter(|segment| !now.contains_key(segment) && is_there(segment)) {
            let sentence = format!("{brick} reaches segment {segment} again");
            ledger.tell(state, "attachment.reachable", brick.as_str(), sentence, None);
        }
    }
}

fn observation(state: &State, target: &Target, seen: Option<Seen>, fresh: bool) -> Option<Observation> {
    let name = target.name().clone();
    match (target, seen) {
        (Target::Switch(..), None) => None,
        (_, None) => Some(Observation::Silent { brick: name, off: false }),
        (_, Some(Seen::Table(table))) => fresh.then(|| Observation::Compute {
            brick: name,
            segments: table.iter().map(|entry| entry.segment).collect(),
        }),
        (_, Some(Seen::Pairs(pairs))) => fresh.then_some(Observation::Switch { switch: name, pairs }),
        (_, Some(Seen::Pool(None))) => believed(&state.rack, name),
        (_, Some(Seen::Pool(Some(view)))) => fresh.then(|| pool(state, name, &view)),
    }
}

/// A simulated memory server has what it is believed to have.
fn believed(rack: &Rack, brick: Name) -> Option<Observation> {
    let Offer::Memory { size } = rack.brick(&brick).ok()?.spec().offers else { return None };
    let segments = rack.segments_on(&brick).ok()?.map(|segment| (segment.id, segment.pages)).collect();
    Some(Observation::Memory { brick, size, segments, others: 0 })
}

/// What a memory server lists, by the deeds.
fn pool(state: &State, brick: Name, view: &PoolView) -> Observation {
    let deeds = || state.deeds.iter().filter(|(_, deed)| deed.brick == brick);
    let of = |id: u64, pages: u64| {
        let ours = |deed: &Deed| deed.place.is_some_and(|place| (place.id, place.epoch) == (id, view.epoch));
        deeds().find(|(_, deed)| ours(deed)).map(|(segment, _)| (*segment, pages))
    };
    let segments: Vec<(SegmentId, u64)> =
        view.segments.iter().filter_map(|listed| of(listed.id, listed.pages)).collect();
    // What has a name of ours is being made at this moment, or is a twin that will be destroyed.
    let names: BTreeSet<String> = deeds().map(|(segment, _)| attachment_of(*segment)).collect();
    let others = view.segments.iter().filter(|listed| !names.contains(&listed.name));
    let others = others.map(|listed| listed.pages).sum();
    Observation::Memory { brick, size: Bytes::from_pages(view.pages), segments, others }
}
