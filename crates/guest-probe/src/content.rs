//! What the probe writes into a page: every word depends on the seed, the page's number, its version and the word's place. So a
//! page that comes back empty, old or from another place is told from the right one, and a wrong word tells where it is from.
//!
//! Pure; the words are those of the SplitMix64 generator (Steele, Lea, Flood 2014), whose mixing can be undone.

use std::fmt;

/// Words of 64 bits in a page.
pub const PAGE_WORDS: usize = rackmem_types::PAGE_SIZE / size_of::<u64>();

/// Distance of two neighbours in the generator's sequence: the golden ratio in 64 bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const FIRST_FACTOR: u64 = 0xbf58_476d_1ce4_e5b9;
const SECOND_FACTOR: u64 = 0x94d0_49bb_1331_11eb;

/// The contents of all pages of one memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    key: u64,
}

/// The content of one page in one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageContent {
    content: Content,
    page: u32,
    version: u32,
}

/// A page does not hold what was written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The page's number.
    pub page: u32,
    /// The first wrong word in it.
    pub word: usize,
    /// The version that was written last.
    pub version: u32,
    /// What is there instead.
    pub found: Found,
}

/// What a wrong word turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The page lost its content.
    Zero,
    /// The page holds what was written to it earlier.
    Older {
        /// That version.
        version: u32,
    },
    /// The page holds what belongs to another one.
    Other {
        /// The page to which it belongs.
        page: u32,
        /// Its version.
        version: u32,
    },
    /// Nothing that the probe wrote.
    Unknown(u64),
}

impl Content {
    /// The contents that belong to `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { key: mix(seed.wrapping_add(STEP)) }
    }

    /// The content of page number `page` after it was written `version` times again.
    pub const fn page(self, page: u32, version: u32) -> PageContent {
        PageContent { content: self, page, version }
    }

    /// Page and version whose word `word` is `value`. Every value has an answer; only a plausible one means something.
    fn origin(self, word: usize, value: u64) -> (u32, u32) {
        let base = unmix(value).wrapping_sub(offset(word));
        let joined = unmix(base) ^ self.key;
        ((joined >> 32) as u32, joined as u32)
    }
}

impl PageContent {
    /// The page's word number `word`.
    pub const fn word(self, word: usize) -> u64 {
        mix(self.base().wrapping_add(offset(word)))
    }

    /// Writes the content.
    pub fn write(self, words: &mut [u64]) {
        let base = self.base();
        for (at, word) in words.iter_mut().enumerate() {
            *word = mix(base.wrapping_add(offset(at)));
        }
    }

    /// Compares every word. `pages` is how many pages there are: a wrong word that belongs to one of them is recognised.
    pub fn check(self, words: &[u64], pages: u32) -> Result<(), Damage> {
        let base = self.base();
        let wrong = words.iter().enumerate().find(|(at, word)| **word != mix(base.wrapping_add(offset(*at))));
        wrong.map_or(Ok(()), |(at, word)| Err(self.damage(at, *word, pages)))
    }

    /// What it means that word number `word` is `value`.
    pub fn damage(self, word: usize, value: u64, pages: u32) -> Damage {
        let (page, version) = self.content.origin(word, value);
        let found = if value == 0 {
            Found::Zero
        } else if page == self.page && version < self.version {
            Found::Older { version }
        } else if page != self.page && page < pages && version <= VERSION_PLAUSIBLE_MAX {
            Found::Other { page, version }
        } else {
            Found::Unknown(value)
        };
        Damage { page: self.page, word, version: self.version, found }
    }

    const fn base(self) -> u64 {
        mix((((self.page as u64) << 32) | self.version as u64) ^ self.content.key)
    }
}

/// No test writes a page more often than this, and only one foreign word in 65,536 (with as many pages as there can be) seems
/// to be a version below it by chance.
const VERSION_PLAUSIBLE_MAX: u32 = 1 << 16;

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { page, word, version, found } = self;
        write!(f, "page {page}, written {version} times since it was filled, holds at word {word} ")?;
        match found {
            Found::Zero => write!(f, "zero"),
            Found::Older { version } => write!(f, "what it held when it had been written {version} times"),
            Found::Other { page, version } => {
                write!(f, "what belongs to page {page} in its version {version}")
            }
            Found::Unknown(value) => write!(f, "{value:#018x}, which the probe never wrote"),
        }
    }
}

const fn offset(word: usize) -> u64 {
    (word as u64 + 1).wrapping_mul(STEP)
}

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(FIRST_FACTOR);
    z = (z ^ (z >> 27)).wrapping_mul(SECOND_FACTOR);
    z ^ (z >> 31)
}

const fn unmix(mut z: u64) -> u64 {
    z = (z ^ (z >> 31) ^ (z >> 62)).wrapping_mul(inverse(SECOND_FACTOR));
    z = (z ^ (z >> 27) ^ (z >> 54)).wrapping_mul(inverse(FIRST_FACTOR));
    z ^ (z >> 30) ^ (z >> 60)
}

/// The number by which `odd` has to be multiplied to make 1, modulo 2⁶⁴: Newton's iteration doubles the right bits each time.
const fn inverse(odd: u64) -> u64 {
    let mut guess = odd;
    let mut step = 0;
    while step < 5 {
        guess = guess.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(guess)));
        step += 1;
    }
    guess
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(content: PageContent) -> Vec<u64> {
        let mut words = vec![0; PAGE_WORDS];
        content.write(&mut words);
        words
    }

    proptest! {
        #[test]
        fn mixing_can_be_undone(z in any::<u64>()) {
            prop_assert_eq!(unmix(mix(z)), z);
        }

        #[test]
        fn what_was_written_is_found_right(seed in any::<u64>(), page in any::<u32>(), version in any::<u32>()) {
            let content = Content::new(seed).page(page, version);
            let words = written(content);
            prop_assert_eq!(content.check(&words, u32::MAX), Ok(()));
            prop_assert_eq!(words[17], content.word(17));
        }

        #[test]
        fn one_changed_bit_is_found(seed in any::<u64>(), page in 0u32..1000, word in 0..PAGE_WORDS, bit in 0u32..64) {
            let content = Content::new(seed).page(page, 3);
            let mut words = written(content);
            words[word] ^= 1 << bit;
            let damage = content.check(&words, 1000).unwrap_err();
            prop_assert_eq!((damage.page, damage.word), (page, word));
        }

        #[test]
        fn a_page_from_elsewhere_is_named(seed in any::<u64>(), page in 0u32..1000, other in 0u32..1000, version in 0u32..50) {
            prop_assume!(page != other);
            let content = Content::new(seed);
            let damage = content.page(page, 7).check(&written(content.page(other, version)), 1000).unwrap_err();
            prop_assert_eq!(damage.found, Found::Other { page: other, version });
        }

        #[test]
        fn an_old_page_is_named(seed in any::<u64>(), page in any::<u32>(), version in 0u32..50, newer in 1u32..50) {
            let content = Content::new(seed);
            let old = written(content.page(page, version));
            let damage = content.page(page, version + newer).check(&old, 1000).unwrap_err();
            prop_assert_eq!(damage.found, Found::Older { version });
        }
    }

    #[test]
    fn an_emptied_page_is_named() {
        let damage = Content::new(7).page(17, 3).check(&[0; PAGE_WORDS], 20).unwrap_err();
        assert_eq!(damage, Damage { page: 17, word: 0, version: 3, found: Found::Zero });
        assert_eq!(damage.to_string(), "page 17, written 3 times since it was filled, holds at word 0 zero");
    }

    #[test]
    fn contents_of_two_seeds_differ() {
        let found =
            Content::new(1).page(0, 0).check(&written(Content::new(2).page(0, 0)), 10).unwrap_err().found;
        assert!(matches!(found, Found::Unknown(_)), "{found:?}");
    }
}
