//! What leaves and what comes early: the eviction policy and the prefetcher of the pager.
//!
//! Both are pure and deterministic: they see faults and pages that come back, and answer with pages. They never do IO,
//! read a clock, draw random numbers or allocate per call; the pager owns the threads, the locks and the page states.

mod eviction;
mod prefetch;
mod replay;

pub use eviction::{Admission, Eviction, PageRef, S3Fifo};
pub use prefetch::{Prefetcher, WINDOW_PAGES_MAX, Window};
pub use replay::{Replayed, replay};
