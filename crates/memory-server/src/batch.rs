//! The answers to one batch of requests, on their way out.
//!
//! Heads of frames are collected in one buffer, pages stay where they are, in the segments; a batch remembers in which
//! order they go out. It is kept from batch to batch, so that nothing is allocated once it has grown to its size.

use std::ops::Range;
use std::sync::Arc;

use rackmem_segment::Segment;
use rackmem_types::PAGE_SIZE;
use rackmem_uapi::gather::{PIECES_MAX, Piece};
use rackmem_wire::{Answer, PAGES_PER_FRAME_MAX, PageRecord, pages_head};

/// Bytes of answers after which a batch is sent before more requests are served: enough to make a system call cheap, few
/// enough for pages to be in the cache still, and for the client to begin with the first while the next are prepared.
const FULL_BYTES: usize = 256 << 10;

/// Parts after which a batch is sent, so that one more frame's still fit into the same system call.
const FULL_PARTS: usize = PIECES_MAX - PAGES_PER_FRAME_MAX - 1;

/// Answers that wait to be sent together.
#[derive(Debug, Default)]
pub struct Batch {
    heads: Vec<u8>,
    parts: Vec<Part>,
    /// Bytes of pages in `parts`.
    page_bytes: usize,
}

#[derive(Debug)]
enum Part {
    Heads(Range<usize>),
    Pages { segment: Arc<Segment>, first: u64, count: u64 },
}

impl Batch {
    /// Adds an answer without pages.
    pub fn answer(&mut self, id: u64, answer: &Answer<'_>) {
        self.head(|heads| answer.encode(id, heads));
    }

    /// Adds whatever `encode` appends: whole frames without pages.
    pub(crate) fn head(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.heads.len();
        encode(&mut self.heads);
        let end = self.heads.len();
        match self.parts.last_mut() {
            Some(Part::Heads(range)) if range.end == start => range.end = end,
            _ => self.parts.push(Part::Heads(start..end)),
        }
    }

    /// Adds a PAGES answer; the pages' data is taken when the batch is sent.
    pub(crate) fn pages(&mut self, id: u64, segment: &Arc<Segment>, records: &[PageRecord]) {
        self.head(|heads| pages_head(id, records, heads));
        for record in records.iter().filter(|record| record.is_ok()) {
            let page = record.page.get();
            self.page_bytes += PAGE_SIZE;
            match self.parts.last_mut() {
                Some(Part::Pages { first, count, .. }) if *first + *count == page => *count += 1,
                _ => self.parts.push(Part::Pages { segment: Arc::clone(segment), first: page, count: 1 }),
            }
        }
    }

    /// Whether the batch is to be sent before more is added.
    pub fn is_full(&self) -> bool {
        self.heads.len() + self.page_bytes >= FULL_BYTES || self.parts.len() >= FULL_PARTS
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether any of `pages` of the segment waits here to be sent, so that it must not change before.
    pub(crate) fn holds(&self, segment: &Segment, mut pages: impl Iterator<Item = Range<u64>>) -> bool {
        self.page_bytes > 0
            && pages.any(|range| {
                self.parts.iter().any(|part| match part {
                    Part::Pages { segment: other, first, count } => {
                        other.id() == segment.id() && *first < range.end && range.start < first + count
                    }
                    Part::Heads(_) => false,
                })
            })
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.heads.len() + self.page_bytes
    }

    /// What is to be sent, from byte `skip` on.
    pub fn pieces(&self, mut skip: usize) -> impl Iterator<Item = Piece<'_>> {
        self.parts.iter().filter_map(move |part| {
            let piece = match part {
                Part::Heads(range) => Piece::Bytes(&self.heads[range.clone()]),
                Part::Pages { segment, first, count } => {
                    Piece::Shared(segment.memory(), *first as usize * PAGE_SIZE, *count as usize * PAGE_SIZE)
                }
            };
            let skipped = skip.min(piece.len());
            skip -= skipped;
            Some(piece.skip(skipped)).filter(|piece| !piece.is_empty())
        })
    }

    /// Forgets everything, after it was sent.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.parts.clear();
        self.page_bytes = 0;
    }
}
