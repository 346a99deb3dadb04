//! Writes a trace. Called from a housekeeping thread, never from the fault path: it may wait for the disk.

use std::io::{BufWriter, Write};

use crate::TraceError;
use crate::header::Header;
use crate::record::{Context, Event, EvictionKind, FaultKind, Record};
use crate::varint::{put, zigzag};

/// Bytes collected before the file is written to: some thirty thousand records.
const BUFFER_BYTES: usize = 128 << 10;

/// Kinds of records: the low four bits of a record's first byte.
pub(crate) mod kind {
    pub(crate) const PROCESS_STARTED: u8 = 0;
    pub(crate) const PROCESS_ENDED: u8 = 1;
    pub(crate) const FAULT_FAR: u8 = 2;
    pub(crate) const FAULT_ZERO: u8 = 3;
    pub(crate) const FAULT_STANDBY: u8 = 4;
    pub(crate) const FAULT_MINOR: u8 = 5;
    pub(crate) const EVICTED_SENT: u8 = 6;
    pub(crate) const EVICTED_UNCHANGED: u8 = 7;
    pub(crate) const EVICTED_ZERO: u8 = 8;
    pub(crate) const PREFETCHED: u8 = 9;
    pub(crate) const DISCARDED: u8 = 10;
}

/// Flags: the high four bits of a record's first byte.
pub(crate) mod flag {
    /// The fault was a write.
    pub(crate) const WRITE: u8 = 0x10;
    /// The process differs from the record before and is given.
    pub(crate) const PROCESS: u8 = 0x20;
    /// The thread differs from the fault before and is given.
    pub(crate) const THREAD: u8 = 0x40;
    /// The run has more than one page and its length is given.
    pub(crate) const PAGES: u8 = 0x80;
}

/// Writes records to `W` through a buffer. Call [`Writer::finish`] at the end: dropping it loses write errors.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: BufWriter<W>,
    context: Context,
    bytes: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a trace with `header`.
    pub fn new(out: W, header: &Header) -> Result<Self, TraceError> {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
        out.write_all(&header.encode()?)?;
        Ok(Self { out, context: Context::default(), bytes: Vec::with_capacity(64) })
    }

    /// Appends `record`, which must follow the rules of [`Record`]; if it does not, it is refused and the trace stays
    /// as it was.
    pub fn write(&mut self, record: &Record) -> Result<(), TraceError> {
        self.bytes.clear();
        encode(&mut self.bytes, &self.context, record);
        self.context.advance(record).map_err(TraceError::Refused)?;
        Ok(self.out.write_all(&self.bytes)?)
    }

    /// Hands all that was written so far to the file.
    pub fn flush(&mut self) -> Result<(), TraceError> {
        Ok(self.out.flush()?)
    }

    /// Ends the trace and gives the file back.
    pub fn finish(self) -> Result<W, TraceError> {
        self.out.into_inner().map_err(|error| TraceError::Io(error.into_error()))
    }
}

fn encode(out: &mut Vec<u8>, context: &Context, record: &Record) {
    let run = record.event.run();
    let thread = match record.event {
        Event::Fault { thread, .. } if thread != context.thread => Some(thread),
        _ => None,
    };
    let process = (record.process != context.process).then_some(record.process);
    let pages = run.map(|run| run.pages).filter(|pages| *pages > 1);
    let write = matches!(record.event, Event::Fault { write: true, .. });
    out.push(
        kind_of(&record.event)
            | if write { flag::WRITE } else { 0 }
            | if process.is_some() { flag::PROCESS } else { 0 }
            | if thread.is_some() { flag::THREAD } else { 0 }
            | if pages.is_some() { flag::PAGES } else { 0 },
    );
    put(out, record.at_us.wrapping_sub(context.at_us));
    if let Some(process) = process {
        put(out, process.into());
    }
    if let Some(thread) = thread {
        put(out, thread.into());
    }
    if let Some(run) = run {
        put(out, zigzag(run.first.wrapping_sub(context.next_page).cast_signed()));
    }
    if let Some(pages) = pages {
        put(out, pages - 2);
    }
    if let Event::ProcessStarted { pid, parent } = record.event {
        put(out, pid.into());
        put(out, parent.map_or(0, |parent| u64::from(parent) + 1));
    }
}

fn kind_of(event: &Event) -> u8 {
    match event {
        Event::ProcessStarted { .. } => kind::PROCESS_STARTED,
        Event::ProcessEnded => kind::PROCESS_ENDED,
        Event::Fault { kind: FaultKind::Far, .. } => kind::FAULT_FAR,
        Event::Fault { kind: FaultKind::Zero, .. } => kind::FAULT_ZERO,
        Event::Fault { kind: FaultKind::Standby, .. } => kind::FAULT_STANDBY,
        Event::Fault { kind: FaultKind::Minor, .. } => kind::FAULT_MINOR,
        Event::Evicted { kind: EvictionKind::Sent, .. } => kind::EVICTED_SENT,
        Event::Evicted { kind: EvictionKind::Unchanged, .. } => kind::EVICTED_UNCHANGED,
        Event::Evicted { kind: EvictionKind::Zero, .. } => kind::EVICTED_ZERO,
        Event::Prefetched { .. } => kind::PREFETCHED,
        Event::Discarded { .. } => kind::DISCARDED,
    }
}
