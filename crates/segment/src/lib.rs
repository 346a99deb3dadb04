//! rackmem-segment
