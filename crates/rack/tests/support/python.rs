//! The dice of Python's `random` module, to throw again what a program in Python threw.

use rand_mt::Mt;

/// `random.Random(seed)`.
pub(crate) struct Random(Mt);

impl Random {
    /// CPython seeds with the 32-bit words of the number as a key (`random_seed` in Modules/_randommodule.c).
    pub(crate) fn new(seed: u32) -> Self {
        Self(Mt::new_with_key([seed]))
    }

    /// From `from` to `to`, both included: as many bits as the count of them has, thrown until they are below it
    /// (`_randbelow_with_getrandbits` in Lib/random.py).
    pub(crate) fn randint(&mut self, from: u32, to: u32) -> u32 {
        let count = to - from + 1;
        let unused = count.leading_zeros();
        loop {
            let thrown = self.0.next_u32() >> unused;
            if thrown < count {
                return from + thrown;
            }
        }
    }
}
