//! rackmem-wire
