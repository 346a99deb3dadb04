//! The pool: how much there is, what is reserved, and which segments exist.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rackmem_types::{Bytes, PAGE_SIZE};
use rackmem_wire::{LEASE_MAX_MS, OwnerToken, SEGMENTS_MAX};

use crate::lease::{Lease, LeaseState};
use crate::segment::Segment;

/// Why the pool refuses.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The capacity cannot be reserved.
    #[error("the memory server has {} free, {} were asked for: ask for less or use another server",
        bytes(*free), bytes(*pages))]
    Full {
        /// Pages asked for.
        pages: u64,
        /// Pages that can be reserved.
        free: u64,
    },
    /// A segment of no pages.
    #[error("a segment has at least one page")]
    Empty,
    /// Too many segments.
    #[error("the memory server keeps {SEGMENTS_MAX} segments already, which is its limit")]
    TooMany,
    /// The lease is longer than allowed.
    #[error("a lease of {asked_ms} ms was asked for, the longest is {LEASE_MAX_MS} ms")]
    LeaseTooLong {
        /// Milliseconds asked for.
        asked_ms: u64,
    },
    /// No such segment.
    #[error("segment {0} is not here: it was destroyed, its lease ran out, or the server was restarted")]
    NoSegment(u64),
    /// The token is not the owner's.
    #[error("segment {0} belongs to somebody else: its owner token does not match")]
    NotOwner(u64),
    /// The kernel gave no memory file.
    #[error("the memory server cannot make the segment's memory file: {0}")]
    Memory(io::Error),
}

/// `pages` as people read it. A client may ask for any number, also for more pages than there are bytes in the world.
fn bytes(pages: u64) -> Bytes {
    Bytes(pages.saturating_mul(PAGE_SIZE as u64))
}

/// One line of the list of segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its size.
    pub pages: u64,
    /// Pages with content.
    pub filled: u64,
    /// Connections that have it open.
    pub attached: u32,
    /// Time until it is freed, while nobody has it open.
    pub lease_left: Option<Duration>,
}

#[derive(Debug)]
struct Entry {
    segment: Arc<Segment>,
    owner: OwnerToken,
    lease: Lease,
}

/// All segments of a memory server, and the account of its capacity.
#[derive(Debug)]
pub struct Pool {
    capacity: u64,
    reserved: u64,
    next_id: u64,
    segments: BTreeMap<u64, Entry>,
}

impl Pool {
    /// A pool of `capacity` pages.
    pub fn new(capacity: u64) -> Self {
        Self { capacity, reserved: 0, next_id: 1, segments: BTreeMap::new() }
    }

    /// Size in pages.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Pages that segments have reserved.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Pages that can be reserved.
    pub fn free(&self) -> u64 {
        self.capacity - self.reserved
    }

    /// Segments.
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether there is no segment.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Reserves a segment; its creator has it open.
    pub fn create(
        &mut self,
        name: &str,
        pages: u64,
        owner: OwnerToken,
        lease_ms: u64,
    ) -> Result<Arc<Segment>, PoolError> {
        if pages == 0 {
            return Err(PoolError::Empty);
        }
        if pages > self.free() {
            return Err(PoolError::Full { pages, free: self.free() });
        }
        if self.segments.len() >= SEGMENTS_MAX {
            return Err(PoolError::TooMany);
        }
        if lease_ms > LEASE_MAX_MS {
            return Err(PoolError::LeaseTooLong { asked_ms: lease_ms });
        }
        let segment = Arc::new(Segment::new(self.next_id, name, pages).map_err(PoolError::Memory)?);
        let lease = Lease::attached(Duration::from_millis(lease_ms));
        self.segments.insert(self.next_id, Entry { segment: Arc::clone(&segment), owner, lease });
        self.next_id += 1;
        self.reserved += pages;
        Ok(segment)
    }

    /// Opens a segment for one more connection of its owner.
    pub fn open(&mut self, id: u64, owner: OwnerToken) -> Result<Arc<Segment>, PoolError> {
        let entry = self.segments.get_mut(&id).ok_or(PoolError::NoSegment(id))?;
        if entry.owner != owner {
            return Err(PoolError::NotOwner(id));
        }
        entry.lease.open();
        Ok(Arc::clone(&entry.segment))
    }

    /// A connection that had the segment open is gone. Nothing happens if the segment is gone, too.
    pub fn leave(&mut self, id: u64, now: Instant) {
        if let Some(entry) = self.segments.get_mut(&id) {
            entry.lease.leave(now);
        }
    }

    /// Takes a segment out of the pool. Its capacity is free at once, its memory when the caller calls
    /// [`Segment::clear`], which takes long and is best done without the pool's lock.
    pub fn remove(&mut self, id: u64) -> Result<Arc<Segment>, PoolError> {
        let entry = self.segments.remove(&id).ok_or(PoolError::NoSegment(id))?;
        self.reserved -= entry.segment.pages();
        Ok(entry.segment)
    }

    /// Takes every segment out whose lease is over at `now`, as [`Pool::remove`] does.
    pub fn expire(&mut self, now: Instant) -> Vec<Arc<Segment>> {
        let over = self.segments.extract_if(.., |_, entry| entry.lease.is_over(now));
        let expired: Vec<_> = over.map(|(_, entry)| entry.segment).collect();
        self.reserved -= expired.iter().map(|segment| segment.pages()).sum::<u64>();
        expired
    }

    /// All segments, by id.
    pub fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.values().map(|entry| &entry.segment)
    }

    /// What there is to know about every segment, by id.
    pub fn list(&self, now: Instant) -> Vec<SegmentSummary> {
        let summary = |(id, entry): (&u64, &Entry)| {
            let (attached, lease_left) = match entry.lease.state() {
                LeaseState::Attached(count) => (count, None),
                LeaseState::Waiting(until) => (0, Some(until.saturating_duration_since(now))),
            };
            SegmentSummary {
                id: *id,
                name: entry.segment.name().to_owned(),
                pages: entry.segment.pages(),
                filled: entry.segment.filled(),
                attached,
                lease_left,
            }
        };
        self.segments.iter().map(summary).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWNER: OwnerToken = OwnerToken([1; 16]);

    #[test]
    fn a_full_pool_says_what_is_free() {
        let mut pool = Pool::new(100);
        pool.create("a", 90, OWNER, 0).unwrap();
        let error = pool.create("b", 11, OWNER, 0).unwrap_err();
        assert!(matches!(error, PoolError::Full { pages: 11, free: 10 }));
        assert_eq!(
            error.to_string(),
            "the memory server has 40KiB free, 44KiB were asked for: ask for less or use another server"
        );
        let absurd = pool.create("b", u64::MAX, OWNER, 0).unwrap_err();
        assert!(absurd.to_string().contains("40KiB free"), "{absurd}");
        assert!(matches!(pool.create("b", 0, OWNER, 0), Err(PoolError::Empty)));
        assert!(matches!(pool.create("b", 1, OWNER, u64::MAX), Err(PoolError::LeaseTooLong { .. })));
        pool.create("b", 10, OWNER, 0).unwrap();
    }

    #[test]
    fn only_the_owner_opens_a_segment() {
        let mut pool = Pool::new(10);
        let id = pool.create("a", 1, OWNER, 0).unwrap().id();
        assert!(matches!(pool.open(id, OwnerToken([2; 16])), Err(PoolError::NotOwner(_))));
        assert!(matches!(pool.open(id + 1, OWNER), Err(PoolError::NoSegment(_))));
        assert_eq!(pool.open(id, OWNER).unwrap().id(), id);
    }

    proptest! {
        /// Whatever the clients do, the account equals the sum of the segments and a lease frees exactly what waits.
        #[test]
        fn the_account_is_right(steps in prop::collection::vec((0u8..4, 1u64..8, 1u64..40), 0..60)) {
            let start = Instant::now();
            let mut pool = Pool::new(100);
            for (second, (action, id, pages)) in steps.into_iter().enumerate() {
                let now = start + Duration::from_secs(second as u64);
                match action {
                    0 => drop(pool.create("x", pages, OWNER, 3000)),
                    1 => drop(pool.remove(id)),
                    2 => pool.leave(id, now),
                    _ => drop(pool.expire(now)),
                }
                prop_assert_eq!(pool.reserved(), pool.segments().map(|segment| segment.pages()).sum::<u64>());
                prop_assert!(pool.reserved() <= pool.capacity());
            }
            for id in 1..100 {
                pool.leave(id, start);
            }
            pool.expire(start + Duration::from_secs(1000));
            prop_assert!(pool.is_empty() && pool.free() == 100);
        }
    }
}
