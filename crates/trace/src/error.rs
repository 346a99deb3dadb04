//! What can be wrong with a trace.

use std::io;

/// A trace could not be read or written. Offsets count bytes from the start of the file.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file or stream failed.
    #[error("the trace could not be read or written")]
    Io(#[from] io::Error),
    /// It does not begin like a trace.
    #[error("this is no rackmem trace: it does not begin with 'RMTRACE'; record one with --trace FILE")]
    NotATrace,
    /// It was written by another version.
    #[error(
        "the trace has format version {found}, and this rackmem reads version {known}: use the rackmem that wrote it"
    )]
    Version {
        /// The version in the file.
        found: u16,
        /// The version that is read here.
        known: u16,
    },
    /// It ends within the header or a record, as when its writer was killed. All records before are good.
    #[error(
        "the trace ends in the middle of the record at byte {offset}: its writer was killed or the disk was full"
    )]
    Truncated {
        /// Where the unfinished header or record begins.
        offset: u64,
    },
    /// A value is not allowed where it stands.
    #[error("the trace is damaged in the record at byte {offset}: {what}")]
    Damaged {
        /// Where the header or record begins.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A record that was to be written breaks the rules of the format.
    #[error("the record cannot be written: {0}")]
    Refused(&'static str),
}
