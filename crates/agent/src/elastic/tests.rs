use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const BOUNDS: Bounds = Bounds { min: Bytes(256 * MIB), max: Bytes(8192 * MIB) };
const INTERVAL_MS: u64 = 1000;

/// A guest that does what it is asked to, as far as what it uses lets it.
struct Guest {
    policy: Policy,
    size: u64,
    at_ms: u64,
    changes: Vec<(u64, Decision)>,
    /// The part of a shrink that it gives, in percent.
    gives_percent: u64,
}

impl Guest {
    fn new(size_mib: u64) -> Self {
        let policy = Policy::new(BOUNDS);
        Self { policy, size: size_mib * MIB, at_ms: 0, changes: Vec::new(), gives_percent: 100 }
    }

    /// Uses so much for so many seconds.
    fn uses(&mut self, used_mib: u64, seconds: u64) -> &mut Self {
        for _ in 0..seconds {
            let used = used_mib * MIB;
            let sample = Sample {
                at_ms: self.at_ms,
                size: Bytes(self.size),
                available: Bytes(self.size.saturating_sub(used)),
                ..Sample::default()
            };
            let decision = self.policy.decide(sample);
            match decision {
                Decision::Hold(_) => {}
                Decision::Grow { to, .. } => {
                    assert!(to.0 > self.size, "a growth grows");
                    self.size = to.0;
                }
                Decision::Shrink { to, .. } => {
                    assert!(to.0 < self.size, "a shrink shrinks");
                    self.size -= (self.size - to.0) * self.gives_percent / 100;
                }
            }
            if !matches!(decision, Decision::Hold(_)) {
                self.changes.push((self.at_ms, decision));
            }
            self.at_ms += INTERVAL_MS;
        }
        self
    }
}

#[test]
fn a_guest_that_runs_short_grows_at_once() {
    let mut guest = Guest::new(512);
    guest.uses(200, 5).uses(500, 1);
    let [(_, Decision::Grow { to, reason })] = guest.changes[..] else { panic!("{:?}", guest.changes) };
    assert_eq!(reason, Reason::Low { percent: 2 });
    assert_eq!(to, Bytes(768 * MIB));
    assert_eq!(reason.to_string(), "only 2 % of its memory is available");
}

#[test]
fn a_roomy_guest_shrinks_after_a_wait() {
    let mut guest = Guest::new(2048);
    guest.uses(300, 30);
    assert_eq!(guest.changes, []);
    guest.uses(300, 2);
    let [(_, Decision::Shrink { to, .. })] = guest.changes[..] else { panic!("{:?}", guest.changes) };
    assert_eq!(to, Bytes(432 * MIB));
}

#[test]
fn a_guest_that_swaps_grows_though_memory_seems_available() {
    let mut policy = Policy::new(BOUNDS);
    let mut sample = Sample { size: Bytes(1024 * MIB), available: Bytes(300 * MIB), ..Sample::default() };
    assert!(matches!(policy.decide(sample), Decision::Hold(_)));
    sample.at_ms += INTERVAL_MS;
    sample.swapped_in = Bytes(MIB);
    let grown = Decision::Grow { to: Bytes(1536 * MIB), reason: Reason::Swapping { bytes: Bytes(MIB) } };
    assert_eq!(policy.decide(sample), grown);
}

#[test]
fn a_need_that_comes_and_goes_changes_ever_less_often() {
    let mut guest = Guest::new(1024);
    for _ in 0..100 {
        guest.uses(200, 60).uses(1500, 60);
    }
    // 12,000 s, a hundred rounds; the wait has soon outgrown the rounds.
    assert!(guest.changes.len() < 12, "{:?}", guest.changes);
}

#[test]
fn a_guest_that_cannot_give_is_asked_ever_less_often() {
    let mut guest = Guest::new(4096);
    guest.gives_percent = 0;
    guest.uses(300, 3600);
    assert!((4..10).contains(&guest.changes.len()), "{:?}", guest.changes);
}

#[test]
fn a_guest_outside_of_its_bounds_comes_back() {
    let mut guest = Guest::new(128);
    guest.uses(90, 1);
    assert_eq!(guest.size, BOUNDS.min.0);
    let mut guest = Guest::new(10_000);
    guest.uses(9_000, 1);
    assert_eq!(guest.size, BOUNDS.max.0);
}

proptest! {
    #[test]
    fn a_steady_need_is_soon_left_alone(size in 256u64..8192, used in 1u64..8192) {
        let mut guest = Guest::new(size);
        guest.uses(used.min(size), 1).uses(used, 600);
        let settled = guest.changes.len();
        // Nine growths by half lead from the least to the most; then at most one shrink.
        prop_assert!(settled <= 10, "{:?}", guest.changes);
        guest.uses(used, 3600);
        prop_assert_eq!(guest.changes.len(), settled, "{:?}", guest.changes);
        // Settled means: enough where the bounds allow, and not far too much.
        if used * 100 / 85 < 8192 {
            prop_assert!(guest.size > used * MIB);
        }
        prop_assert!(guest.size <= BOUNDS.max.0 && guest.size >= BOUNDS.min.0);
        prop_assert!(guest.size <= (used * MIB * 2).max(BOUNDS.min.0 * 17 / 16), "{} {used}", guest.size / MIB);
    }

    #[test]
    fn noise_around_a_need_changes_nothing(used in 400u64..5000, noise in prop::collection::vec(-7i64..=7, 300)) {
        let mut guest = Guest::new(1024);
        guest.uses(used.min(1000), 1).uses(used, 300);
        let settled = guest.changes.len();
        for percent in noise {
            guest.uses((used as i64 + used as i64 * percent / 100) as u64, 1);
        }
        // At most the one growth to the aim, for a need that settled right at the edge.
        prop_assert!(guest.changes.len() <= settled + 2, "{:?}", guest.changes);
    }

    #[test]
    fn decisions_stay_within_bounds_whatever_the_guest_says(
        samples in prop::collection::vec((1u64..20_000, 0u64..20_000, 0u64..3, 0u64..2_000), 1..200)
    ) {
        let mut policy = Policy::new(BOUNDS);
        let mut sample = Sample::default();
        for (size, available, swapped, faults) in samples {
            sample.at_ms += INTERVAL_MS;
            (sample.size, sample.available) = (Bytes(size * MIB), Bytes(available * MIB));
            sample.swapped_in.0 += swapped;
            sample.major_faults += faults;
            match policy.decide(sample) {
                Decision::Hold(_) => {}
                Decision::Grow { to, .. } => prop_assert!(to > sample.size && to <= BOUNDS.max),
                Decision::Shrink { to, .. } => prop_assert!(to < sample.size && to >= BOUNDS.min),
            }
        }
    }
}
