//! Seeded random numbers, cheap enough to stand inside a measured loop.

/// xorshift64*: three shifts and a multiplication a number.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`, which must not be zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `0.0..1.0`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// SplitMix64's finaliser: a bijection in which every input bit reaches every output bit.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Numbers from 0 to n-1 in a shuffled order.
pub(crate) fn permutation(n: u32, random: &mut Random) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..n).collect();
    for i in (1..numbers.len()).rev() {
        numbers.swap(i, random.below(i as u64 + 1) as usize);
    }
    numbers
}

/// Zipf's distribution over `0..n`: Gray et al., "Quickly generating billion-record synthetic databases" (1994), which is
/// also what YCSB uses.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    n: u64,
    theta: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    /// `theta` is the skew, below 1; 0.99 is YCSB's.
    pub(crate) fn new(n: u64, theta: f64) -> Self {
        let zeta_of = |n: u64| (1..=n).map(|i| (i as f64).powf(-theta)).sum::<f64>();
        let zeta = zeta_of(n);
        let eta = (1.0 - (2.0 / n as f64).powf(1.0 - theta)) / (1.0 - zeta_of(2) / zeta);
        Self { n, theta, alpha: 1.0 / (1.0 - theta), zeta, eta }
    }

    /// A rank; 0 is the most frequent.
    pub(crate) fn rank(&self, random: &mut Random) -> u64 {
        let u = random.unit();
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5f64.powf(self.theta) {
            return 1;
        }
        let rank = (self.n as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as u64;
        rank.min(self.n - 1)
    }

    /// A key: ranks scattered over all keys, so that the frequent ones are no neighbours in memory.
    pub(crate) fn key(&self, random: &mut Random) -> u64 {
        mix(self.rank(random)) % self.n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_holds_every_number_once() {
        let mut numbers = permutation(1000, &mut Random::new(1));
        assert_ne!(numbers, (0..1000).collect::<Vec<_>>());
        numbers.sort_unstable();
        assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn zipf_gives_the_first_rank_its_share() {
        let zipf = Zipf::new(1000, 0.99);
        let mut random = Random::new(7);
        let draws = 200_000;
        let first = (0..draws).filter(|_| zipf.rank(&mut random) == 0).count() as f64 / f64::from(draws);
        let share = 1.0 / (1..=1000).map(|i| f64::from(i).powf(-0.99)).sum::<f64>();
        assert!((first - share).abs() < 0.01, "{first} instead of {share}");
    }
}
