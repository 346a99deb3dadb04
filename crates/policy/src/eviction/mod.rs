//! The eviction policy's contract, and S3-FIFO as its implementation.

mod loop_guard;
mod page_bytes;
mod queue;
mod s3fifo;

pub use s3fifo::S3Fifo;

/// Index of a page in the pager's page table: dense, and stable while the page is managed (chunk of 512 pages × 512 +
/// offset in the chunk).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageRef(pub u32);

/// How a page became resident: all that a policy learns about use, since today's kernels show no access bits of
/// anonymous memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The program touched it for the first time.
    FirstTouch,
    /// A fault brought it back from far memory.
    Fetched,
    /// It was read ahead of need; nobody has asked for it yet.
    Prefetched,
    /// It came back from the standby list before it left: proof of re-use.
    Reclaimed,
    /// It was resident at the attach.
    Found,
}

/// Decides which resident page leaves next.
pub trait Eviction: Send {
    /// `page` is resident now. A page that is resident already stays where it is, and `Reclaimed` or `Fetched` then
    /// counts as a sign of use.
    fn admit(&mut self, page: PageRef, how: Admission);

    /// `page` is gone for good (discarded, unmapped, moved away): it will not come out as a victim, and its history
    /// is dropped. Constant time; a page that is not resident is fine.
    fn forget(&mut self, page: PageRef);

    /// Takes up to `count` pages out of the resident set, in the order in which they should leave, and appends them
    /// to `out`, whose capacity the caller has reserved. Fewer come only when no page is resident any more.
    fn victims(&mut self, count: usize, out: &mut Vec<PageRef>);

    /// Pages in the resident set.
    fn resident(&self) -> usize;
}
