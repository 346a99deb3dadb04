//! Writes the journal to the trace file: threads and spaces become the small numbers of the format.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rackmem_trace::{Event, EvictionKind, FaultKind, Header, Record, Run, TraceError, Writer};
use rackmem_types::PAGE_SIZE;

use crate::core::PAGE;
use crate::journal::{Happening, JournalRecord};
use crate::table::SpaceId;
use crate::{PagerError, Shared};

/// The trace file of a target.
pub(crate) struct TraceFile {
    /// `None` after the file could not be written; the target matters more than its trace.
    writer: Option<Writer<BufWriter<File>>>,
    begun: Instant,
    last_us: u64,
    records: Vec<JournalRecord>,
    /// Index in the trace of each space, with its process, which tells a new space under an old number.
    processes: HashMap<SpaceId, (u32, u32)>,
    process_count: u32,
    threads: HashMap<u32, u32>,
}

impl TraceFile {
    pub(crate) fn create(path: &Path, command: &str) -> Result<Self, PagerError> {
        let failed = |source: TraceError| PagerError::Trace(path.to_owned(), source);
        let file = File::create(path).map_err(|error| failed(error.into()))?;
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = Header {
            page_size: PAGE_SIZE as u32,
            started_us: started.as_micros() as u64,
            command: command.to_owned(),
        };
        let writer = Writer::new(BufWriter::new(file), &header).map_err(failed)?;
        Ok(Self {
            writer: Some(writer),
            begun: Instant::now(),
            last_us: 0,
            records: Vec::new(),
            processes: HashMap::new(),
            process_count: 0,
            threads: HashMap::new(),
        })
    }

    /// Writes what has happened since the last time.
    pub(crate) fn drain(&mut self, shared: &Shared) {
        let mut records = std::mem::take(&mut self.records);
        let mut core = shared.lock();
        let Some(journal) = &mut core.journal else { return };
        journal.swap(&mut records);
        let dropped = std::mem::take(&mut journal.dropped);
        if dropped > 0 {
            core.warn(format!(
                "the trace lacks {dropped} records: the file could not be written fast enough"
            ));
        }
        let pids: HashMap<SpaceId, u32> =
            core.spaces().map(|(id, space)| (id, space.pid.unwrap_or(0))).collect();
        drop(core);
        let result = records.iter().try_for_each(|record| self.write(record, &pids));
        let result = result.and_then(|()| self.write_ends(&pids));
        let result = result.and_then(|()| self.writer.as_mut().map_or(Ok(()), Writer::flush));
        if let Err(error) = result {
            self.writer = None;
            shared.lock().warn(format!("the trace ends here: {error}"));
        }
        self.records = records;
    }

    /// Writes the rest.
    pub(crate) fn finish(&mut self, shared: &Shared) {
        self.drain(shared);
        if let Err(error) = self.write_ends(&HashMap::new()) {
            shared.lock().warn(format!("the end of the trace could not be written: {error}"));
        }
        if let Some(Err(error)) = self.writer.take().map(Writer::finish) {
            shared.lock().warn(format!("the end of the trace could not be written: {error}"));
        }
    }

    /// Notes the end of every process that is not among `pids` any more.
    fn write_ends(&mut self, pids: &HashMap<SpaceId, u32>) -> Result<(), TraceError> {
        let ended: Vec<SpaceId> =
            self.processes.keys().copied().filter(|space| !pids.contains_key(space)).collect();
        for space in ended {
            let (Some((process, _)), Some(writer)) = (self.processes.remove(&space), &mut self.writer) else {
                continue;
            };
            writer.write(&Record { at_us: self.last_us, process, event: Event::ProcessEnded })?;
        }
        Ok(())
    }

    fn write(&mut self, record: &JournalRecord, pids: &HashMap<SpaceId, u32>) -> Result<(), TraceError> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        let at_us = record.at.saturating_duration_since(self.begun).as_micros() as u64;
        self.last_us = self.last_us.max(at_us);
        let pid = pids.get(&record.space).copied().unwrap_or(0);
        let known = self
            .processes
            .get(&record.space)
            .filter(|&&(_, old)| old == pid || pid == 0)
            .map(|&(index, _)| index);
        let process = match known {
            Some(process) => process,
            None => {
                let process = self.process_count;
                self.process_count += 1;
                self.processes.insert(record.space, (process, pid));
                let event = Event::ProcessStarted { pid, parent: None };
                writer.write(&Record { at_us: self.last_us, process, event })?;
                process
            }
        };
        let next = self.threads.len() as u32;
        let event = event(record, |thread| *self.threads.entry(thread).or_insert(next));
        writer.write(&Record { at_us: self.last_us, process, event })?;
        self.writer = Some(writer);
        Ok(())
    }
}

fn event(record: &JournalRecord, mut thread: impl FnMut(u32) -> u32) -> Event {
    let page = record.address / PAGE;
    let run = Run { first: page, pages: record.pages };
    let mut fault = |write, kind| Event::Fault { thread: thread(record.thread), page, write, kind };
    match record.what {
        Happening::FaultFar { write } => fault(write, FaultKind::Far),
        Happening::FaultZero { write } => fault(write, FaultKind::Zero),
        Happening::FaultStandby { write } => fault(write, FaultKind::Standby),
        Happening::Prefetch => Event::Prefetched { run },
        Happening::EvictSent => Event::Evicted { run, kind: EvictionKind::Sent },
        Happening::EvictUnchanged => Event::Evicted { run, kind: EvictionKind::Unchanged },
        Happening::EvictZero => Event::Evicted { run, kind: EvictionKind::Zero },
        Happening::Discard => Event::Discarded { run },
    }
}
