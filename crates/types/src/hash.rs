//! The checksum that a page carries from the moment it leaves to the moment it is back.

use xxhash_rust::xxh3::xxh3_128;

use crate::{PAGE_SIZE, PageData};

/// 128-bit XXH3 hash of a page. The low half is what travels on the wire as the page's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageHash(pub u128);

impl PageHash {
    /// Hash of `page`.
    pub fn of(page: &PageData) -> Self {
        Self(xxh3_128(page))
    }

    /// The 64-bit checksum of the wire format.
    pub const fn checksum(self) -> u64 {
        self.0 as u64
    }
}

/// Whether every byte of `page` is zero. Zero pages are never sent.
pub fn is_zero(page: &PageData) -> bool {
    // Most non-zero pages show it in their first words; the wide folds let the compiler vectorise the rest.
    page.as_chunks::<64>().0.iter().all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

const _: () = assert!(PAGE_SIZE.is_multiple_of(64));

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    #[test]
    fn checksum_is_the_plain_64_bit_xxh3() {
        let page: PageData = std::array::from_fn(|i| (i * 7 % 251) as u8);
        assert_eq!(PageHash::of(&page).checksum(), xxh3_64(&page));
    }

    #[test]
    fn one_bit_makes_a_page_non_zero() {
        let mut page = [0; PAGE_SIZE];
        assert!(is_zero(&page));
        for i in [0, 63, 64, 4095] {
            page[i] = 1;
            assert!(!is_zero(&page), "byte {i}");
            page[i] = 0;
        }
    }
}
