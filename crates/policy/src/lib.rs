//! rackmem-policy
