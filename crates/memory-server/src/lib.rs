//! rackmem-memory-server
