//! Reads a trace record by record, in constant memory, and believes nothing.

use std::io::{BufReader, ErrorKind, Read};

use crate::TraceError;
use crate::header::{FIXED_BYTES, Header};
use crate::record::{Context, Event, EvictionKind, FaultKind, Record, Run};
use crate::varint::{Decoder, Fed, unzigzag};
use crate::writer::{flag, kind};

/// Iterates over the records of a trace. After the first error it ends.
#[derive(Debug)]
pub struct Reader<R: Read> {
    source: Source<R>,
    header: Header,
    context: Context,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads and checks the header.
    pub fn new(source: R) -> Result<Self, TraceError> {
        let mut source = Source { bytes: BufReader::new(source), offset: 0, record_at: 0 };
        let mut fixed = [0; FIXED_BYTES];
        source.fill(&mut fixed).map_err(|error| match error {
            // Something this short is more likely to be another kind of file.
            TraceError::Truncated { .. } => TraceError::NotATrace,
            error => error,
        })?;
        let (mut header, length) = Header::decode(&fixed)?;
        let mut command = vec![0; length];
        source.fill(&mut command)?;
        header.command =
            String::from_utf8(command).map_err(|_| source.damaged("its command line is not UTF-8"))?;
        Ok(Self { source, header, context: Context::default(), ended: false })
    }

    /// What the trace is about.
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn record(&mut self) -> Result<Option<Record>, TraceError> {
        self.source.record_at = self.source.offset;
        let Some(tag) = self.source.byte()? else { return Ok(None) };
        let record = self.fields(tag)?;
        self.context.advance(&record).map_err(|what| self.source.damaged(what))?;
        Ok(Some(record))
    }

    fn fields(&mut self, tag: u8) -> Result<Record, TraceError> {
        let (kind, has) = (tag & 0x0f, |flag: u8| tag & flag != 0);
        let allowed = match kind {
            kind::PROCESS_STARTED | kind::PROCESS_ENDED => flag::PROCESS,
            kind::FAULT_FAR..=kind::FAULT_MINOR => flag::WRITE | flag::PROCESS | flag::THREAD,
            kind::EVICTED_SENT..=kind::DISCARDED => flag::PROCESS | flag::PAGES,
            _ => return Err(self.source.damaged("its kind is unknown")),
        };
        if tag & 0xf0 & !allowed != 0 {
            return Err(self.source.damaged("it has a flag that its kind does not have"));
        }
        let at_us = self.context.at_us.checked_add(self.source.number()?);
        let at_us = at_us.ok_or_else(|| self.source.damaged("its time is larger than 64 bits"))?;
        let process = if has(flag::PROCESS) { self.source.small()? } else { self.context.process };
        let thread = if has(flag::THREAD) { self.source.small()? } else { self.context.thread };
        let event = match kind {
            kind::PROCESS_STARTED => {
                let pid = self.source.small()?;
                Event::ProcessStarted { pid, parent: self.source.small()?.checked_sub(1) }
            }
            kind::PROCESS_ENDED => Event::ProcessEnded,
            _ => page_event(kind, thread, has(flag::WRITE), self.run(has(flag::PAGES))?),
        };
        Ok(Record { at_us, process, event })
    }

    fn run(&mut self, many: bool) -> Result<Run, TraceError> {
        let outside = "its pages lie outside the address space";
        let delta = unzigzag(self.source.number()?);
        let first = self.context.next_page.checked_add_signed(delta);
        let first = first.ok_or_else(|| self.source.damaged(outside))?;
        let pages = if many { self.source.number()?.checked_add(2) } else { Some(1) };
        let pages = pages.ok_or_else(|| self.source.damaged(outside))?;
        Ok(Run { first, pages })
    }
}

fn page_event(kind: u8, thread: u32, write: bool, run: Run) -> Event {
    let fault = |kind| Event::Fault { thread, page: run.first, write, kind };
    match kind {
        kind::FAULT_FAR => fault(FaultKind::Far),
        kind::FAULT_ZERO => fault(FaultKind::Zero),
        kind::FAULT_STANDBY => fault(FaultKind::Standby),
        kind::FAULT_MINOR => fault(FaultKind::Minor),
        kind::EVICTED_SENT => Event::Evicted { run, kind: EvictionKind::Sent },
        kind::EVICTED_UNCHANGED => Event::Evicted { run, kind: EvictionKind::Unchanged },
        kind::EVICTED_ZERO => Event::Evicted { run, kind: EvictionKind::Zero },
        kind::PREFETCHED => Event::Prefetched { run },
        kind::DISCARDED => Event::Discarded { run },
        _ => unreachable!("the kind was checked with its flags"),
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Record, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let record = self.record().transpose();
        self.ended = !matches!(record, Some(Ok(_)));
        record
    }
}

/// The bytes, and where they are in the file.
#[derive(Debug)]
struct Source<R: Read> {
    bytes: BufReader<R>,
    offset: u64,
    /// Where the current record begins: what errors point at.
    record_at: u64,
}

impl<R: Read> Source<R> {
    fn damaged(&self, what: &'static str) -> TraceError {
        TraceError::Damaged { offset: self.record_at, what }
    }

    /// The next byte, unless the file ends here.
    fn byte(&mut self) -> Result<Option<u8>, TraceError> {
        let mut byte = [0];
        match self.bytes.read_exact(&mut byte) {
            Ok(()) => {
                self.offset += 1;
                Ok(Some(byte[0]))
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), TraceError> {
        for byte in out {
            *byte = self.byte()?.ok_or(TraceError::Truncated { offset: self.record_at })?;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<u64, TraceError> {
        let mut decoder = Decoder::default();
        loop {
            let byte = self.byte()?.ok_or(TraceError::Truncated { offset: self.record_at })?;
            match decoder.feed(byte) {
                Fed::More => {}
                Fed::Done(value) => return Ok(value),
                Fed::Wrong(what) => return Err(self.damaged(what)),
            }
        }
    }

    fn small(&mut self) -> Result<u32, TraceError> {
        self.number()?
            .try_into()
            .map_err(|_| self.damaged("a process or thread number is larger than 32 bits"))
    }
}
