//! The extents of far memory as the estate keeps them: all that is needed to open them again.

use rackmem_far::ExtentRecord;

use super::{EXTENTS, Estate, EstateError, SPACES};

const RECORDS: usize = EXTENTS + 64;
const RECORD_BYTES: usize = 512;
/// Behind epoch, segment, token, slots, the address's length and the place in the segment.
const ADDRESS: usize = 56;
const ADDRESS_BYTES_MAX: usize = RECORD_BYTES - ADDRESS;
/// 4 TiB in extents of the usual size.
const EXTENTS_MAX: usize = 1 << 16;

/// Set in the place of an extent that was shed.
const GONE: u64 = 1 << 63;

const _: () = assert!(RECORDS + EXTENTS_MAX * RECORD_BYTES <= SPACES);

impl Estate {
    /// Notes extents that are not noted yet. `false`: they cannot be, and must not be used.
    #[must_use]
    pub(crate) fn extents_note(&mut self, extents: &[ExtentRecord]) -> bool {
        let noted = self.get(EXTENTS) as usize;
        for (i, extent) in extents.iter().enumerate().skip(noted) {
            let address = extent.server.to_string();
            if i >= EXTENTS_MAX || address.len() > ADDRESS_BYTES_MAX {
                return false;
            }
            let at = RECORDS + i * RECORD_BYTES;
            let (low, high) = extent.owner.split_at(8);
            let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |all, &byte| all << 8 | u64::from(byte));
            let slots = u64::from(extent.start) | u64::from(extent.pages) << 32;
            let place = place(extent);
            let length = address.len() as u64;
            let words = [extent.epoch, extent.segment, word(low), word(high), slots, length, place];
            for (k, word) in words.into_iter().enumerate() {
                self.put(at + k * 8, word);
            }
            self.memory.write(at + ADDRESS, address.as_bytes());
            self.put(EXTENTS, i as u64 + 1);
        }
        true
    }

    /// Notes which of the extents were shed; each by one word, so that a successor finds all of it or nothing.
    pub(crate) fn extents_shed(&mut self, extents: &[ExtentRecord]) {
        let noted = self.get(EXTENTS) as usize;
        for (i, extent) in extents.iter().enumerate().take(noted).filter(|(_, extent)| extent.gone) {
            self.put(RECORDS + i * RECORD_BYTES + 6 * 8, place(extent));
        }
    }

    /// All extents.
    pub(crate) fn extents(&self) -> Result<Vec<ExtentRecord>, EstateError> {
        let count = self.get(EXTENTS) as usize;
        if count > EXTENTS_MAX {
            return Err(EstateError::Damaged("more extents than there can be"));
        }
        (0..count).map(|i| self.extent(i).ok_or(EstateError::Damaged("an extent makes no sense"))).collect()
    }

    fn extent(&self, i: usize) -> Option<ExtentRecord> {
        let at = RECORDS + i * RECORD_BYTES;
        let word = |k: usize| self.get(at + k * 8);
        let mut owner = [0; 16];
        owner[..8].copy_from_slice(&word(2).to_le_bytes());
        owner[8..].copy_from_slice(&word(3).to_le_bytes());
        let mut address = vec![0; usize::try_from(word(5)).ok().filter(|&len| len <= ADDRESS_BYTES_MAX)?];
        self.memory.read(at + ADDRESS, &mut address);
        let (start, pages) = (word(4) as u32, (word(4) >> 32) as u32);
        let sound = pages > 0 && start.checked_add(pages).is_some();
        let server = String::from_utf8(address).ok()?.parse().ok()?;
        let (epoch, segment, first) = (word(0), word(1), (word(6) & !GONE) >> 1);
        let (given, gone) = (word(6) & 1 == 1, word(6) & GONE != 0);
        sound.then_some(ExtentRecord { server, epoch, segment, owner, start, pages, first, given, gone })
    }
}

/// The place in the segment, and beside it whether that was given, and whether it was shed.
fn place(extent: &ExtentRecord) -> u64 {
    extent.first << 1 | u64::from(extent.given) | if extent.gone { GONE } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_noted_once_and_come_back() {
        let mut estate = Estate::new().unwrap();
        let extent = |start: u32| ExtentRecord {
            server: "host:7".parse().unwrap(),
            epoch: u64::MAX,
            segment: 5,
            owner: std::array::from_fn(|i| i as u8 * 17),
            start,
            pages: 10,
            first: u64::from(start) << 30,
            given: start > 0,
            gone: false,
        };
        assert!(estate.extents_note(&[extent(0)]));
        assert!(estate.extents_note(&[extent(0), extent(10)]));
        assert_eq!(estate.extents().unwrap(), [extent(0), extent(10)]);
        let gone = ExtentRecord { gone: true, ..extent(0) };
        estate.extents_shed(&[gone.clone(), extent(10)]);
        assert_eq!(estate.extents().unwrap(), [gone, extent(10)]);
        let long =
            ExtentRecord { server: format!("unix:/{}", "x".repeat(500)).parse().unwrap(), ..extent(20) };
        assert!(!estate.extents_note(&[extent(0), extent(10), long]));
        estate.put(RECORDS + 5 * 8, 9999);
        assert!(matches!(estate.extents(), Err(EstateError::Damaged(_))));
    }
}
