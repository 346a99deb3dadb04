//! rackmem-pager
