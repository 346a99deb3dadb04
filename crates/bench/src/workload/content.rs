//! What a page holds: a function of its number and its version, so that a page that is lost, old or another one's shows.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::random::mix;

/// Words in a page.
pub(crate) const WORDS: usize = rackmem_types::PAGE_SIZE / 8;

/// After so many words the content repeats: pages compress about four to one, as heap pages commonly do. Compressed swap is
/// one of the peers, and random bytes would not be fair to it.
const PERIOD: usize = WORDS / 4;

fn word_from(base: u64, word: usize) -> u64 {
    base.wrapping_mul((word % PERIOD) as u64 | 1).rotate_left(17) ^ base
}

/// Writes the whole page.
pub(crate) fn fill(words: &[AtomicU64], page: u64, version: u32) {
    let base = mix(page << 32 | u64::from(version));
    for (i, slot) in words.iter().enumerate() {
        slot.store(word_from(base, i), Relaxed);
    }
}

/// Whether the first, the last and two other words, chosen by `dice`, are right.
pub(crate) fn check(words: &[AtomicU64], page: u64, version: u32, dice: u64) -> bool {
    let base = mix(page << 32 | u64::from(version));
    let (one, two) = (dice as usize % WORDS, (dice >> 32) as usize % WORDS);
    [0, WORDS - 1, one, two].into_iter().all(|i| words[i].load(Relaxed) == word_from(base, i))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_page_and_another_version_are_noticed() {
        let words: Vec<AtomicU64> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        assert!(!check(&words, 3, 0, 99));
        fill(&words, 3, 1);
        for dice in 0..2000u64 {
            assert!(check(&words, 3, 1, mix(dice)));
            assert!(!check(&words, 3, 0, mix(dice)));
            assert!(!check(&words, 4, 1, mix(dice)));
        }
    }
}
