//! The trace of a target: its page faults and evictions in a compact binary file, for the simulator and for people.
//!
//! The format is described byte by byte in `docs/trace-format.md`. Files come from outside: [`Reader`] checks
//! everything and answers with an error that names the offset; it never panics and never believes a length. Nothing here
//! looks at the clock; the pager hands in the times, on its housekeeping thread.

mod error;
mod header;
mod reader;
mod record;
mod varint;
mod writer;

pub use error::TraceError;
pub use header::{COMMAND_BYTES_MAX, Header, VERSION};
pub use reader::Reader;
pub use record::{Event, EvictionKind, FaultKind, PAGE_MAX, PROCESSES_MAX, Record, Run};
pub use writer::Writer;
