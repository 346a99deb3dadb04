//! rackmem-trace
