//! The floor of a far fault: the least that a pager outside the program has to do. A thread touches a missing page; a pager
//! process reads the event, asks a server for 4 KiB by a bare TCP exchange, and copies them in. Nothing else: no eviction, no
//! page states, no checksums, one fault at a time, blocking calls only.
//!
//! The memory, the order of the touches and the processes are those of the product's measurement.

pub(crate) mod app;
pub(crate) mod pager;
pub(crate) mod server;
