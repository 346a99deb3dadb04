//! The memory that the probe holds: anonymous, filled with known contents, page by page in some version.

use std::time::{Duration, Instant};

use guest_probe::{Content, Damage, PAGE_WORDS, Pattern};
use memmap2::MmapMut;
use rackmem_types::{Bytes, PAGE_SIZE};
use zerocopy::FromBytes;

use crate::refusal::Refusal;

/// What is held is a row of mappings of this size, so that its end can be given back at once. It is the size of a huge page.
pub(crate) const CHUNK: Bytes = Bytes(2 << 20);
const CHUNK_PAGES: u32 = CHUNK.pages() as u32;

/// Pages have numbers of 32 bits.
const CHUNKS_MAX: u64 = (1 << 32) / CHUNK_PAGES as u64;

/// Memory with known contents.
pub(crate) struct Held {
    content: Content,
    chunks: Vec<Chunk>,
    random: u64,
    next: u32,
}

struct Chunk {
    mapping: MmapMut,
    versions: Vec<u32>,
}

/// What one touch did.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touch {
    Read,
    Written,
}

impl Held {
    /// Holds `bytes`, rounded up to chunks and at least one, with the contents of `seed`.
    pub(crate) fn new(seed: u64, bytes: Bytes) -> Result<Self, Refusal> {
        let mut held = Self { content: Content::new(seed), chunks: Vec::new(), random: seed, next: 0 };
        held.grow(bytes.max(CHUNK))?;
        Ok(held)
    }

    pub(crate) fn bytes(&self) -> Bytes {
        Bytes(self.chunks.len() as u64 * CHUNK.0)
    }

    pub(crate) fn pages(&self) -> u32 {
        u32::try_from(self.chunks.len() as u64 * CHUNK.pages()).unwrap_or(u32::MAX)
    }

    /// Holds `bytes` more, rounded up to chunks. The mappings are made first, so that the kernel can join them and use huge pages.
    pub(crate) fn grow(&mut self, bytes: Bytes) -> Result<(), Refusal> {
        let before = self.chunks.len();
        let count = bytes.0.div_ceil(CHUNK.0);
        if before as u64 + count > CHUNKS_MAX - 1 {
            return Err(Refusal::TooMuch(bytes));
        }
        let grown = (0..count).map(|_| Chunk::new()).collect::<Result<Vec<_>, _>>();
        self.chunks.extend(grown.map_err(|source| Refusal::NoMemory { bytes, source })?);
        for (number, chunk) in self.chunks.iter_mut().enumerate().skip(before) {
            for within in 0..CHUNK_PAGES {
                self.content.page(number as u32 * CHUNK_PAGES + within, 0).write(chunk.words_mut(within));
            }
        }
        Ok(())
    }

    /// Gives `bytes`, rounded up to chunks, back to the kernel.
    pub(crate) fn shrink(&mut self, bytes: Bytes) -> Result<(), Refusal> {
        let held = self.bytes();
        if bytes > held {
            return Err(Refusal::LessHeld { held, asked: bytes });
        }
        self.chunks.truncate(((held.0 - bytes.0) / CHUNK.0) as usize);
        Ok(())
    }

    /// Compares every word.
    pub(crate) fn check(&self) -> Result<u64, Refusal> {
        let pages = self.pages();
        let mut damaged = (0..pages).filter_map(|page| self.check_page(page).err());
        match damaged.next() {
            None => Ok(pages.into()),
            Some(first) => {
                Err(Refusal::Damaged { first, pages: 1 + damaged.count() as u64, all: pages.into() })
            }
        }
    }

    /// Compares every word of page number `page`.
    pub(crate) fn check_page(&self, page: u32) -> Result<(), Damage> {
        let (chunk, within) = self.chunk(page);
        self.content.page(page, chunk.versions[within as usize]).check(chunk.words(within), self.pages())
    }

    /// Writes page number `page` anew, in its next version.
    pub(crate) fn write_page(&mut self, page: u32) {
        let within = page % CHUNK_PAGES;
        let chunk = &mut self.chunks[(page / CHUNK_PAGES) as usize];
        let version = chunk.versions[within as usize].wrapping_add(1);
        chunk.versions[within as usize] = version;
        self.content.page(page, version).write(chunk.words_mut(within));
    }

    /// Touches one page: compares one word of it or, `writes_percent` times of a hundred, writes it anew.
    pub(crate) fn touch(&mut self, pattern: Pattern, writes_percent: u8) -> Result<Touch, Damage> {
        let random = self.random();
        let page = match pattern {
            Pattern::Random => (random % u64::from(self.pages())) as u32,
            Pattern::Sequential => self.next % self.pages(),
        };
        self.next = page + 1;
        if self.chance(writes_percent) {
            self.write_page(page);
            return Ok(Touch::Written);
        }
        let word = (random >> 40) as usize % PAGE_WORDS;
        let (chunk, within) = self.chunk(page);
        let content = self.content.page(page, chunk.versions[within as usize]);
        let value = chunk.words(within)[word];
        if value == content.word(word) {
            Ok(Touch::Read)
        } else {
            Err(content.damage(word, value, self.pages()))
        }
    }

    /// Says yes `percent` times of a hundred.
    pub(crate) fn chance(&mut self, percent: u8) -> bool {
        self.random() % 100 < percent.into()
    }

    /// Marsaglia's xorshift: which page comes next only has to be cheap to say and hard to foresee.
    fn random(&mut self) -> u64 {
        let mut state = self.random | 1;
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.random = state;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    fn chunk(&self, page: u32) -> (&Chunk, u32) {
        (&self.chunks[(page / CHUNK_PAGES) as usize], page % CHUNK_PAGES)
    }
}

impl Chunk {
    fn new() -> std::io::Result<Self> {
        Ok(Self { mapping: MmapMut::map_anon(CHUNK.0 as usize)?, versions: vec![0; CHUNK_PAGES as usize] })
    }

    fn words(&self, page: u32) -> &[u64] {
        let bytes = &self.mapping[page as usize * PAGE_SIZE..][..PAGE_SIZE];
        <[u64]>::ref_from_bytes(bytes).expect("a page of a mapping is aligned, and whole words long")
    }

    fn words_mut(&mut self, page: u32) -> &mut [u64] {
        let bytes = &mut self.mapping[page as usize * PAGE_SIZE..][..PAGE_SIZE];
        <[u64]>::mut_from_bytes(bytes).expect("a page of a mapping is aligned, and whole words long")
    }
}

/// Touches and measures; the longest single touch is how long the guest stood still at worst.
pub(crate) fn touch_many(
    held: &mut Held,
    pattern: Pattern,
    pages: u64,
    writes_percent: u8,
) -> Result<guest_probe::Touched, Refusal> {
    let start = Instant::now();
    let (mut reads, mut writes, mut longest, mut before) = (0, 0, Duration::ZERO, start);
    for _ in 0..pages {
        let touch = held.touch(pattern, writes_percent);
        match touch.map_err(|first| Refusal::Damaged { first, pages: 1, all: held.pages().into() })? {
            Touch::Read => reads += 1,
            Touch::Written => writes += 1,
        }
        let now = Instant::now();
        longest = longest.max(now - before);
        before = now;
    }
    let elapsed = start.elapsed();
    Ok(guest_probe::Touched {
        reads,
        writes,
        elapsed_us: micros(elapsed),
        per_second: (pages as f64 / elapsed.as_secs_f64().max(1e-9)) as u64,
        longest_us: micros(longest),
    })
}

/// Whole microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use guest_probe::Found;

    use super::*;

    const FOUR_CHUNKS: Bytes = Bytes(4 * CHUNK.0);

    #[test]
    fn what_is_held_stays_right_while_it_grows_and_shrinks() {
        let mut held = Held::new(7, Bytes(1)).unwrap();
        assert_eq!(held.bytes(), CHUNK);
        held.grow(FOUR_CHUNKS).unwrap();
        held.write_page(held.pages() - 1);
        assert_eq!(held.check().unwrap(), 5 * CHUNK.pages());
        held.shrink(Bytes(CHUNK.0 + 1)).unwrap();
        assert_eq!(held.check().unwrap(), 3 * CHUNK.pages());
        held.grow(CHUNK).unwrap();
        assert_eq!(held.check().unwrap(), 4 * CHUNK.pages());
        assert!(matches!(held.shrink(Bytes(5 * CHUNK.0)), Err(Refusal::LessHeld { .. })));
    }

    #[test]
    fn every_kind_of_damage_is_found() {
        let mut held = Held::new(7, FOUR_CHUNKS).unwrap();
        held.write_page(5);
        held.chunks[1].words_mut(3)[9] = 0;
        let foreign = Content::new(7).page(2, 0).word(0);
        held.chunks[0].words_mut(0)[0] = foreign;
        let old = held.content.page(5, 0);
        old.write(held.chunks[0].words_mut(5));
        let found = |page| held.check_page(page).unwrap_err().found;
        assert_eq!(found(CHUNK_PAGES + 3), Found::Zero);
        assert_eq!(found(0), Found::Other { page: 2, version: 0 });
        assert_eq!(found(5), Found::Older { version: 0 });
        let error = held.check().unwrap_err().to_string();
        assert!(error.ends_with("3 of 2048 pages are wrong"), "{error}");
    }

    #[test]
    fn touches_are_counted_and_meet_every_page() {
        let mut held = Held::new(7, CHUNK).unwrap();
        let touched = touch_many(&mut held, Pattern::Sequential, CHUNK.pages(), 100).unwrap();
        assert_eq!((touched.reads, touched.writes), (0, CHUNK.pages()));
        assert!(held.chunks[0].versions.iter().all(|version| *version == 1));
        let touched = touch_many(&mut held, Pattern::Random, 10_000, 20).unwrap();
        assert_eq!(touched.reads + touched.writes, 10_000);
        assert!((1_500..2_500).contains(&touched.writes), "{touched:?}");
        let never = held.chunks[0].versions.iter().filter(|version| **version == 1).count();
        assert!(never < 60, "{never} of 512 pages were never written in 2,000 random writes");
        held.check().unwrap();
    }

    #[test]
    fn a_touch_that_reads_a_wrong_word_says_so() {
        let mut held = Held::new(7, CHUNK).unwrap();
        held.chunks[0].mapping.fill(0);
        assert!(matches!(held.touch(Pattern::Random, 0), Err(Damage { found: Found::Zero, .. })));
    }
}
