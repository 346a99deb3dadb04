//! What a trace records, and the rules that hold between records; reader and writer share both.

/// The largest page number: addresses have 64 bits and pages at least 4 KiB.
pub const PAGE_MAX: u64 = (1 << 52) - 1;

/// Processes in one trace; a reader remembers only their number.
pub const PROCESSES_MAX: u32 = 1 << 22;

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Time since the trace began, in microseconds; never less than that of the record before.
    pub at_us: u64,
    /// Index of the process: 0 for the target, then in the order of their `ProcessStarted`.
    pub process: u32,
    /// What happened.
    pub event: Event,
}

/// What happened to a process or to some of its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The process came under management; it takes the next free index.
    ProcessStarted {
        /// Process id.
        pid: u32,
        /// Index of the process that forked it; none if rackmem started it or attached to it.
        parent: Option<u32>,
    },
    /// The process ended or was let go.
    ProcessEnded,
    /// A thread faulted.
    Fault {
        /// The thread: a small number that is its own within the trace, not its thread id.
        thread: u32,
        /// Page number of the address.
        page: u64,
        /// Whether the access was a write.
        write: bool,
        /// Where the page came from.
        kind: FaultKind,
    },
    /// Pages left the process.
    Evicted {
        /// The pages.
        run: Run,
        /// What leaving cost.
        kind: EvictionKind,
    },
    /// Pages were read ahead of need.
    Prefetched {
        /// The pages.
        run: Run,
    },
    /// The program gave pages up by itself: `munmap`, `madvise`, the old place of an `mremap`.
    Discarded {
        /// The pages.
        run: Run,
    },
}

/// Where a faulting page came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// From a memory server.
    Far,
    /// It had no content: first touch, or all zero.
    Zero,
    /// From the standby list, on its way out.
    Standby,
    /// It was there; only its protection was changed.
    Minor,
}

/// What it cost to let pages leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionKind {
    /// They were sent to a memory server.
    Sent,
    /// The memory server had them already.
    Unchanged,
    /// They were all zero.
    Zero,
}

/// Neighbouring pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Page number of the first.
    pub first: u64,
    /// How many, at least one.
    pub pages: u64,
}

impl Run {
    /// A run of a single page.
    pub fn single(page: u64) -> Self {
        Self { first: page, pages: 1 }
    }
}

impl Event {
    /// The pages that the event is about.
    pub(crate) fn run(&self) -> Option<Run> {
        match *self {
            Self::ProcessStarted { .. } | Self::ProcessEnded => None,
            Self::Fault { page, .. } => Some(Run::single(page)),
            Self::Evicted { run, .. } | Self::Prefetched { run } | Self::Discarded { run } => Some(run),
        }
    }
}

/// What both sides know after the records so far, so that a record can be told by its difference.
#[derive(Debug, Default)]
pub(crate) struct Context {
    pub(crate) at_us: u64,
    pub(crate) process: u32,
    pub(crate) thread: u32,
    /// The page behind the last run: a run that continues it has a difference of zero.
    pub(crate) next_page: u64,
    pub(crate) processes: u32,
}

impl Context {
    /// Checks `record` against the rules and moves on; an error is a sentence for the user.
    pub(crate) fn advance(&mut self, record: &Record) -> Result<(), &'static str> {
        if record.at_us < self.at_us {
            return Err("its time lies before that of the record before");
        }
        match record.event {
            Event::ProcessStarted { .. } if self.processes == PROCESSES_MAX => {
                return Err("there are more than 4194304 processes");
            }
            Event::ProcessStarted { parent, .. } => {
                if record.process != self.processes {
                    return Err("a process that starts does not take the next free index");
                }
                if parent.is_some_and(|parent| parent >= self.processes) {
                    return Err("the parent of a process has not started");
                }
                self.processes += 1;
            }
            _ if record.process >= self.processes => return Err("its process has not started"),
            _ => {}
        }
        if let Some(run) = record.event.run() {
            let end = run.first.checked_add(run.pages).filter(|end| run.pages > 0 && *end <= PAGE_MAX + 1);
            self.next_page = end.ok_or("its pages lie outside the address space")?;
        }
        if let Event::Fault { thread, .. } = record.event {
            self.thread = thread;
        }
        self.at_us = record.at_us;
        self.process = record.process;
        Ok(())
    }
}
