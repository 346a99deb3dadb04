//! Random numbers from a seed: the same seed gives the same run.

/// SplitMix64 (Steele, Lea, Flood 2014): one word of state, good enough for latencies and failures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) const fn within(&mut self, low: u64, high: u64) -> u64 {
        if high <= low { low } else { low + self.next() % (high - low + 1) }
    }

    /// Whether something happens that happens `permille` times in a thousand.
    pub(crate) const fn happens(&mut self, permille: u32) -> bool {
        self.within(1, 1000) <= permille as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_run() {
        let run = |seed| {
            let mut random = Random::new(seed);
            [random.next(), random.within(5, 9), random.next()]
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn chances_are_what_they_say() {
        let mut random = Random::new(1);
        let often = (0..10_000).filter(|_| random.happens(250)).count();
        assert!((2300..2700).contains(&often), "{often}");
        assert!(!(0..1000).any(|_| random.happens(0)) && (0..1000).all(|_| random.happens(1000)));
        assert!((0..1000).all(|_| (3..=5).contains(&random.within(3, 5))));
    }
}
