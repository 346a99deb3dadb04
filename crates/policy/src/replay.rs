//! Replays a sequence of page accesses against an eviction policy, with the pager's standby list in between.
//!
//! It tells a policy exactly what the pager could tell it: faults and reclaims, never hits. It models no time.

use std::collections::VecDeque;

use crate::{Admission, Eviction, PageRef};

/// Victims that the modelled pager takes at once.
const BATCH: usize = 8;

/// What a replay counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Accesses in the trace.
    pub accesses: u64,
    /// Accesses to a page that had never been touched: the same under every policy.
    pub first_touches: u64,
    /// Faults on a page that was on its way out: cheap, no network.
    pub reclaims: u64,
    /// Faults that had to wait for far memory.
    pub misses: u64,
}

impl Replayed {
    /// Misses per access to a page that had been touched before.
    pub fn miss_ratio(&self) -> f64 {
        let repeated = self.accesses - self.first_touches;
        if repeated == 0 { 0.0 } else { self.misses as f64 / repeated as f64 }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Untouched,
    Resident,
    /// On the standby list since the eviction with this number.
    Standby(u64),
    Far,
}

/// Replays `trace` with `limit` local pages, of which `standby` hold pages on their way out.
///
/// Panics if `standby` is not smaller than `limit`.
pub fn replay(
    trace: impl IntoIterator<Item = PageRef>,
    limit: usize,
    standby: usize,
    policy: &mut dyn Eviction,
) -> Replayed {
    assert!(standby < limit, "a standby list of {standby} pages leaves nothing of {limit}");
    let mut counted = Replayed::default();
    let mut states: Vec<State> = Vec::new();
    let mut leaving: VecDeque<(PageRef, u64)> = VecDeque::new();
    let mut evictions = 0;
    let mut victims = Vec::with_capacity(BATCH);
    for page in trace {
        counted.accesses += 1;
        let index = page.0 as usize;
        if index >= states.len() {
            states.resize(index + 1, State::Untouched);
        }
        let how = match states[index] {
            State::Resident => continue,
            State::Untouched => {
                counted.first_touches += 1;
                Admission::FirstTouch
            }
            State::Standby(_) => {
                counted.reclaims += 1;
                Admission::Reclaimed
            }
            State::Far => {
                counted.misses += 1;
                Admission::Fetched
            }
        };
        states[index] = State::Resident;
        policy.admit(page, how);
        if policy.resident() > limit - standby {
            policy.victims(BATCH.min(limit - standby), &mut victims);
            for victim in victims.drain(..) {
                states[victim.0 as usize] = State::Standby(evictions);
                leaving.push_back((victim, evictions));
                evictions += 1;
            }
            // Reclaimed pages leave a stale entry behind, which counts for nothing but is never longer than the list.
            while leaving.len() > standby {
                let Some((page, number)) = leaving.pop_front() else { break };
                let state = &mut states[page.0 as usize];
                if *state == State::Standby(number) {
                    *state = State::Far;
                }
            }
        }
    }
    counted
}
