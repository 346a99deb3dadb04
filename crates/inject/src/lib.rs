//! rackmem-inject
