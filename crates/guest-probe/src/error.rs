//! What can go wrong between a test and the probe in its guest.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rackmem_types::ParseBytesError;

/// A line could not be read, or the probe could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The line is empty, or its first words are unknown.
    #[error("{}", unknown_order(.0))]
    UnknownOrder(String),
    /// The line is too short.
    #[error("the order ends where {0} is expected")]
    MissingWord(&'static str),
    /// The line is too long.
    #[error("'{word}' is one word too many after `{order}`")]
    TooManyWords {
        /// What was understood.
        order: String,
        /// What was not.
        word: String,
    },
    /// A number is none, or too large.
    #[error("'{word}' is not a number that can stand for {what}")]
    NotANumber {
        /// What it stands for.
        what: &'static str,
        /// The word.
        word: String,
    },
    /// One of two words is expected.
    #[error("'{word}' stands where {first} or {second} is expected")]
    NeitherWord {
        /// One.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// The word.
        word: String,
    },
    /// An amount of memory cannot be read.
    #[error(transparent)]
    Bytes(#[from] ParseBytesError),
    /// A command for the shell has a line end in it, which would end the order.
    #[error("`{0}` is more than one line: put a semicolon between commands")]
    NotOneLine(String),
    /// Nobody answers in the guest.
    #[error("no probe answered on {} within {patience:?}: does the guest run, and is its serial port {} there?", path.display(), crate::PORT_NAME)]
    NoProbe {
        /// The socket that QEMU listens on.
        path: PathBuf,
        /// How long it was tried.
        patience: Duration,
    },
    /// The line to the guest ended or broke.
    #[error(
        "the line to the guest broke while `{order}` was under way: the guest or its QEMU may have ended"
    )]
    Broken {
        /// What was asked.
        order: String,
        /// The reason.
        source: io::Error,
    },
    /// The probe took too long.
    #[error("the probe did not answer `{order}` within {patience:?}")]
    Late {
        /// What was asked.
        order: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The probe ended, and another one is in its place, which holds nothing.
    #[error(
        "the probe ended before `{order}` was done, and number {run} took its place: the guest's kernel may have killed it for want of memory, its console tells"
    )]
    Restarted {
        /// What was asked.
        order: String,
        /// The number of the new one.
        run: u32,
    },
    /// The probe could not do it.
    #[error("the probe refused `{order}`: {reason}")]
    Refused {
        /// What was asked.
        order: String,
        /// Its sentence.
        reason: String,
    },
    /// The probe is of another version.
    #[error(
        "the answer to `{order}` is not one that belongs to it: {answer}. Build the guest again: cargo xtask guest"
    )]
    UnexpectedAnswer {
        /// What was asked.
        order: String,
        /// What came.
        answer: String,
    },
    /// The guest was not built.
    #[error("there is no test guest in {}: build it by `cargo xtask guest`", .0.display())]
    NoGuest(PathBuf),
}

fn unknown_order(line: &str) -> String {
    if line.is_empty() {
        "an order is missing: send one, for example `info`".to_owned()
    } else {
        format!("`{line}` is no order: docs/test-guests.md lists them")
    }
}
