//! The memory server: lends a pool of memory over the page protocol.
//!
//! # Threads
//!
//! Each connection has its own thread, which blocks in `recv`, serves every request that arrived, and sends all answers
//! with one call. One epoll loop for all connections was the alternative. A thread is better for what this server is for:
//! a lone page read costs two system calls instead of three, and a lone read is what a stopped program waits for; a fault
//! on one connection does not wait behind a megabyte of evictions on another, since the kernel shares the core between
//! them; a slow client blocks only itself, and what it has not read is held back by TCP instead of in memory here; and
//! more cores are used without any balancing. The price is a stack and a receive buffer for each connection, and a few
//! microseconds for a switch of threads; a pager has a handful of connections and sends in batches, so few connections
//! are busy at one time and each wake-up has many pages to serve.
//!
//! Beside them run one thread that accepts, one that ends what leases left behind, one that gives memory back to the kernel
//! (which takes 0.06 ms for each MiB, too long for a connection that destroys gigabytes and then wants a page), and one for
//! metrics where asked for.
//!
//! # State and locks
//!
//! The pool of segments is behind one lock that only the requests about whole segments take. Pages are read and written
//! under their segment's own lock. Answers are sent without any lock, straight from the segments' memory.
//!
//! # Limits
//!
//! No request is queued: a connection holds one receive buffer and the heads of the answers of one batch, everything else
//! stays in the sockets. Memory is thereby bounded by the number of connections. What waits to be given back is queued up
//! to a limit; beyond it, the connection that brings more does it itself.
//!
//! # Shutdown
//!
//! [`Shutdown::trigger`] stops the accepting, ends the reading side of every connection (each serves what has arrived,
//! sends an ERROR with the code `Draining`, and ends), and after a grace time cuts those that do not.

mod batch;
mod config;
mod connection;
mod error;
mod freeing;
mod listen;
mod metrics;
mod metrics_http;
mod regions;
mod server;
mod session;
mod shutdown;
mod spin;
mod stream;
mod tls;

pub use batch::Batch;
pub use config::{Limits, Listen, ParseListenError, ServerConfig, TlsFiles};
pub use error::ServerError;
pub use rackmem_uapi::gather::Piece;
pub use server::{Server, run};
pub use session::{Flow, Session, Store};
pub use shutdown::Shutdown;
