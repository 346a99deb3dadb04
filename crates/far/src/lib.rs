//! rackmem-far
