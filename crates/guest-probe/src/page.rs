//! The one page of the RSA document: held by itself, its place in guest-physical memory known, read and written on demand only.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;

use guest_probe::OnePage;
use memmap2::MmapMut;
use rackmem_types::{Bytes, PAGE_SIZE};

use crate::refusal::Refusal;

const PAGEMAP: &str = "/proc/self/pagemap";

/// An entry of the page map: 55 bits of frame number, and whether there is one (`Documentation/admin-guide/mm/pagemap.rst`).
const FRAME: u64 = (1 << 55) - 1;
const PRESENT: u64 = 1 << 63;

pub(crate) struct Page(MmapMut);

impl Page {
    /// A page that is there and stays: locked, so that it is neither swapped nor (with
    /// `vm.compact_unevictable_allowed=0`) moved.
    pub(crate) fn new() -> Result<Self, Refusal> {
        let no_memory = |source| Refusal::NoMemory { bytes: Bytes(PAGE_SIZE as u64), source };
        let mut mapping = MmapMut::map_anon(PAGE_SIZE).map_err(no_memory)?;
        mapping.fill(0);
        mapping.lock().map_err(no_memory)?;
        Ok(Self(mapping))
    }

    /// Where the page is. This does not touch it.
    pub(crate) fn place(&self) -> Result<OnePage, Refusal> {
        let index = self.0.as_ptr().addr() / PAGE_SIZE;
        let mut entry = [0; 8];
        File::open(PAGEMAP)
            .and_then(|file| file.read_exact_at(&mut entry, index as u64 * 8))
            .map_err(Refusal::file(PAGEMAP))?;
        let guest_physical_address = physical_address(u64::from_le_bytes(entry))?;
        Ok(OnePage { guest_physical_address, value: None })
    }

    /// Reads the first word.
    pub(crate) fn read(&self) -> Result<OnePage, Refusal> {
        let mut word = [0; 8];
        word.copy_from_slice(&black_box(&self.0)[..8]);
        Ok(OnePage { value: Some(u64::from_le_bytes(word)), ..self.place()? })
    }

    /// Writes the first word.
    pub(crate) fn write(&mut self, value: u64) -> Result<OnePage, Refusal> {
        black_box(&mut self.0)[..8].copy_from_slice(&value.to_le_bytes());
        Ok(OnePage { value: Some(value), ..self.place()? })
    }
}

fn physical_address(entry: u64) -> Result<u64, Refusal> {
    let unclear = |what: &str| Refusal::Unclear { path: PAGEMAP.to_owned(), what: what.to_owned() };
    match entry & FRAME {
        _ if entry & PRESENT == 0 => Err(unclear("where the page is, because it is not there")),
        0 => Err(unclear("where the page is: only root may know that")),
        frame => Ok(frame * PAGE_SIZE as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_the_page_map() {
        assert_eq!(physical_address(PRESENT | (1 << 55) | 0x1234).unwrap(), 0x0123_4000);
        assert!(physical_address(0x1234).unwrap_err().to_string().contains("not there"));
        assert!(physical_address(PRESENT).unwrap_err().to_string().contains("only root"));
    }
}
