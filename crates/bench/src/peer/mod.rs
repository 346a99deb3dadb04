//! What rackmem is measured against: memory in swap, remote and compressed.

pub(crate) mod cgroup;
pub(crate) mod swap;
