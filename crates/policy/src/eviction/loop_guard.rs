//! Notices that the program goes round a loop just larger than its local memory.
//!
//! On such a loop every order that lets the oldest page go misses always: each page leaves shortly before its turn.
//! The sign is that pages come back after the *same* number of evictions, round after round; random and skewed use
//! spread widely. The guard samples evictions, measures the distance at which the samples come back, and says whether
//! they cluster. It does not choose victims.

use super::PageRef;

/// Evictions sampled for each resident set's worth of evictions. Enough to fill `DISTANCES` in a fraction of a round.
const SAMPLES: usize = 128;

/// Distances that are compared: few enough to react within a quarter of a round, enough to rule out chance.
const DISTANCES: usize = 32;

/// Of `DISTANCES`, how many must agree before a loop is believed, and below how many it is no longer believed.
const AGREE_ENTER: usize = 28;
const AGREE_LEAVE: usize = 20;

/// A loop must be proven anew after this many resident sets' worth of evictions, because the pages that were kept
/// show no sign of use and may have become useless meanwhile.
const ROUNDS_MAX: u64 = 8;

/// The same, if not even one sample came back at the loop's distance.
const ROUNDS_SILENT_MAX: u64 = 2;

#[derive(Clone, Copy, Debug)]
struct Sample {
    page: PageRef,
    evicted_at: u64,
}

#[derive(Debug)]
pub(super) struct LoopGuard {
    /// Evictions so far: the clock of this module.
    evictions: u64,
    /// The next eviction that is sampled.
    sample_at: u64,
    /// Sampled evictions, found by a hash of the page; a collision loses the older one.
    samples: [Option<Sample>; SAMPLES],
    /// The latest distances, a ring.
    distances: [u64; DISTANCES],
    measured: usize,
    looping: bool,
    entered_at: u64,
    agreed_at: u64,
}

impl LoopGuard {
    pub(super) fn new() -> Self {
        Self {
            evictions: 0,
            sample_at: 0,
            samples: [None; SAMPLES],
            distances: [0; DISTANCES],
            measured: 0,
            looping: false,
            entered_at: 0,
            agreed_at: 0,
        }
    }

    /// Whether the program is in a loop that does not fit.
    pub(super) fn is_looping(&self) -> bool {
        self.looping
    }

    /// `page` leaves while `resident` pages stay.
    pub(super) fn evicted(&mut self, page: PageRef, resident: usize) {
        self.evictions += 1;
        if self.evictions >= self.sample_at {
            self.sample_at = self.evictions + (resident / SAMPLES).max(1) as u64;
            self.samples[sample_of(page)] = Some(Sample { page, evicted_at: self.evictions });
        }
        if self.looping {
            let round = resident.max(1) as u64;
            let proof_is_old = self.evictions - self.entered_at > ROUNDS_MAX * round;
            let silent = self.evictions - self.agreed_at > ROUNDS_SILENT_MAX * round;
            if proof_is_old || silent {
                self.leave();
            }
        }
    }

    /// `page`, which was evicted, is asked for again.
    pub(super) fn returned(&mut self, page: PageRef, resident: usize) {
        let slot = &mut self.samples[sample_of(page)];
        let Some(sample) = slot.take_if(|sample| sample.page == page) else { return };
        let distance = self.evictions - sample.evicted_at;
        self.distances[self.measured % DISTANCES] = distance;
        self.measured += 1;
        if self.measured < DISTANCES {
            return;
        }
        // Evictions come in batches and several threads may share the loop, so the distance wobbles a little.
        let tolerance = (distance / 8).max(resident as u64 / 128);
        let agree = self.distances.iter().filter(|other| other.abs_diff(distance) <= tolerance).count();
        if agree >= AGREE_ENTER {
            self.agreed_at = self.evictions;
            if !self.looping {
                self.looping = true;
                self.entered_at = self.evictions;
                // The distances change with the order of eviction: measure afresh.
                self.measured = 0;
            }
        } else if self.looping && agree < AGREE_LEAVE {
            self.leave();
        }
    }

    fn leave(&mut self) {
        self.looping = false;
        self.measured = 0;
        self.samples = [None; SAMPLES];
    }
}

fn sample_of(page: PageRef) -> usize {
    // Fibonacci hashing: neighbouring pages, which leave together, spread over the table.
    (page.0.wrapping_mul(0x9e37_79b9) >> 25) as usize % SAMPLES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every page comes back after `distance(i)` evictions, `rounds` resident sets long.
    fn drive(guard: &mut LoopGuard, rounds: usize, mut distance: impl FnMut(usize) -> usize) {
        const RESIDENT: usize = 4096;
        let mut due: Vec<Vec<PageRef>> = vec![Vec::new(); 16 * RESIDENT];
        for i in 0..rounds * RESIDENT {
            let page = PageRef(i as u32);
            guard.evicted(page, RESIDENT);
            due[i + distance(i)].push(page);
            for page in std::mem::take(&mut due[i]) {
                guard.returned(page, RESIDENT);
            }
        }
    }

    #[test]
    fn equal_distances_are_a_loop_and_scattered_ones_are_not() {
        let mut guard = LoopGuard::new();
        drive(&mut guard, 1, |_| 900);
        assert!(guard.is_looping());
        drive(&mut guard, 3, |i| i.wrapping_mul(2_654_435_761) % 3000);
        assert!(!guard.is_looping());
    }

    #[test]
    fn a_loop_that_falls_silent_is_given_up() {
        let mut guard = LoopGuard::new();
        drive(&mut guard, 1, |_| 900);
        assert!(guard.is_looping());
        drive(&mut guard, 3, |_| 8 * 4096);
        assert!(!guard.is_looping());
    }
}
