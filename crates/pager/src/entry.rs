//! What is known of one page, packed into three words.
//!
//! ```text
//! word 0   bits 0–3 state · 4 slot valid · 5 discarded · 6 waited for · 8–23 place · 24–63 version, low 40 bits
//! word 1   low 64 bits of the hash: the checksum of the wire
//! word 2   bits 0–31 far slot, all ones for none · 32–39 version, high 8 bits · 40–63 further bits of the hash
//! ```
//!
//! 24 bytes a page are 0.59 % of the memory that they describe.

use rackmem_types::{PageHash, PageVersion, Slot};

/// Where a page's content is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Nowhere: never touched, discarded, or all zeros. A fault is answered with zeros.
    #[default]
    Empty = 0,
    /// In the target.
    Resident = 1,
    /// On its way out of the target; a batch of the evictor holds it.
    Leaving = 2,
    /// On the standby list at index `place`, and in its slot or on the way there.
    Standby = 3,
    /// In its slot only.
    Far = 4,
    /// In its slot, and asked for under the tag `place`.
    Fetching = 5,
    /// Lost with its memory server. Touching it gives SIGBUS.
    Lost = 6,
}

/// One page's entry, unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) state: State,
    /// The slot holds, or is about to hold, the content with `version` and `hash`.
    pub(crate) slot_valid: bool,
    /// The program gave the content back (`MADV_DONTNEED` and its kin) after it was last known: the page may be missing
    /// although it was resident, and then zeros are the truth.
    pub(crate) discarded: bool,
    /// A thread waits for the page while it leaves.
    pub(crate) waited: bool,
    /// Index on the standby list or tag of the fetch.
    pub(crate) place: u16,
    /// Version of the content in the slot. 48 bits: at a million stores a second they last nine years.
    pub(crate) version: PageVersion,
    /// Low 88 bits of the hash of the content in the slot.
    pub(crate) hash: u128,
    /// Where it lives far away, kept while it is resident so that an unchanged page need not be sent.
    pub(crate) slot: Option<Slot>,
}

/// Words of a packed entry.
pub(crate) const ENTRY_WORDS: usize = 3;
const NO_SLOT: u32 = u32::MAX;
const VERSION_MAX: u64 = (1 << 48) - 1;
const HASH_MASK: u128 = (1 << 88) - 1;

impl Entry {
    pub(crate) fn unpack(words: [u64; ENTRY_WORDS]) -> Self {
        let slot = words[2] as u32;
        Self {
            state: match words[0] & 15 {
                0 => State::Empty,
                1 => State::Resident,
                2 => State::Leaving,
                3 => State::Standby,
                4 => State::Far,
                5 => State::Fetching,
                _ => State::Lost,
            },
            slot_valid: words[0] >> 4 & 1 == 1,
            discarded: words[0] >> 5 & 1 == 1,
            waited: words[0] >> 6 & 1 == 1,
            place: (words[0] >> 8) as u16,
            version: words[0] >> 24 | (words[2] >> 32 & 0xff) << 40,
            hash: u128::from(words[1]) | u128::from(words[2] >> 40) << 64,
            slot: (slot != NO_SLOT).then_some(Slot(slot)),
        }
    }

    pub(crate) fn pack(self) -> [u64; ENTRY_WORDS] {
        assert!(self.version <= VERSION_MAX, "2^48 pages were stored");
        let flags =
            u64::from(self.slot_valid) << 4 | u64::from(self.discarded) << 5 | u64::from(self.waited) << 6;
        let slot = self.slot.map_or(NO_SLOT, |slot| slot.0);
        [
            self.state as u64 | flags | u64::from(self.place) << 8 | self.version << 24,
            self.hash as u64,
            u64::from(slot) | (self.version >> 40) << 32 | ((self.hash >> 64) as u64) << 40,
        ]
    }

    /// Whether the slot holds just this content.
    pub(crate) fn is_stored(&self, hash: PageHash) -> bool {
        self.slot.is_some() && self.slot_valid && self.hash == hash.0 & HASH_MASK
    }

    /// The checksum that the content in the slot must have.
    pub(crate) fn checksum(&self) -> u64 {
        self.hash as u64
    }

    /// Notes that the slot is about to hold content with `hash` as `version`.
    pub(crate) fn stored(&mut self, slot: Slot, version: PageVersion, hash: PageHash) {
        self.slot = Some(slot);
        self.slot_valid = true;
        self.version = version;
        self.hash = hash.0 & HASH_MASK;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_packed_zero_is_an_empty_page() {
        let entry = Entry::unpack([0, 0, u64::from(NO_SLOT)]);
        assert_eq!(entry, Entry::default());
    }

    proptest! {
        #[test]
        fn entries_survive_packing(
            state in 0u64..7, flags in 0u64..8, place: u16, version in 0..=VERSION_MAX, hash: u128, slot: Option<u32>,
        ) {
            let mut entry = Entry::unpack([state | flags << 4, 0, u64::from(NO_SLOT)]);
            (entry.place, entry.version, entry.hash) = (place, version, hash & HASH_MASK);
            entry.slot = slot.filter(|&slot| slot != NO_SLOT).map(Slot);
            prop_assert_eq!(Entry::unpack(entry.pack()), entry);
        }
    }
}
