//! Records for the trace file, taken down under the core's lock and written by the keeper.
//!
//! The buffer is made once. When the keeper cannot keep up, records are dropped and counted; a fault never waits for a
//! file.

use std::time::Instant;

use crate::table::SpaceId;

/// What happened to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    /// A fault brought it from a memory server.
    FaultFar { write: bool },
    /// A fault was answered with zeros.
    FaultZero { write: bool },
    /// A fault took it back from the standby list.
    FaultStandby { write: bool },
    /// It was read ahead.
    Prefetch,
    /// It left and was sent.
    EvictSent,
    /// It left; its slot had it already.
    EvictUnchanged,
    /// It left; it was all zeros.
    EvictZero,
    /// The program gave it back.
    Discard,
}

/// One record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JournalRecord {
    pub(crate) at: Instant,
    pub(crate) what: Happening,
    pub(crate) space: SpaceId,
    pub(crate) thread: u32,
    pub(crate) address: u64,
    pub(crate) pages: u64,
}

/// A bounded buffer of records.
pub(crate) struct Journal {
    records: Vec<JournalRecord>,
    pub(crate) dropped: u64,
}

/// A tenth of a second at far more faults than one pager answers.
const RECORDS_MAX: usize = 1 << 16;

impl Journal {
    pub(crate) fn new() -> Self {
        Self { records: Vec::with_capacity(RECORDS_MAX), dropped: 0 }
    }

    pub(crate) fn push(&mut self, record: JournalRecord) {
        if self.records.len() < RECORDS_MAX {
            self.records.push(record);
        } else {
            self.dropped += 1;
        }
    }

    /// Swaps the records out for an empty buffer of the same capacity.
    pub(crate) fn swap(&mut self, empty: &mut Vec<JournalRecord>) {
        empty.clear();
        empty.reserve(RECORDS_MAX);
        std::mem::swap(&mut self.records, empty);
    }
}
