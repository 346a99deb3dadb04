//! The kernel as rackmem uses it: one call per function, no policy.
//!
//! Every `unsafe` block of the workspace is in this crate, each with the reason why it is sound. Functions take
//! borrowed descriptors and give `io::Result`; none keeps state except the types that own a mapping.

pub mod anonymous;
pub mod gather;
pub mod heap;
pub mod inherited;
pub mod process;
pub mod resident;
pub mod shared;
pub mod uffd;
