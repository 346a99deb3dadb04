//! What goes on for as long as somebody listens: events, accesses to a page, a console.

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use rackmem_api::agent::{Access, Console, Driver, LogQuery, LogSource, WatchQuery};
use rackmem_api::{Event, EventId, Problem, VmName, event};
use rackmem_qemu::Machine;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::net::UnixStream;

use super::Agent;
use crate::problem::{from_qemu, from_store, system, wrong_state};

impl Agent {
    pub(super) async fn follow(&self, after: Option<EventId>) -> Result<BoxStream<'static, Event>, Problem> {
        let (oldest, newest) = self.ground.store.event_range().await.map_err(from_store)?;
        let after = after.unwrap_or(newest);
        // Behind the newest is whoever heard of a store that has been lost since.
        let missed = after > newest || after + 1 < oldest;
        let seen = if missed { oldest.saturating_sub(1) } else { after };
        let notice = missed.then(|| Event {
            id: seen,
            at_ms: crate::store::now_ms(),
            kind: event::MISSED.to_owned(),
            target: String::new(),
            detail: "some events are no longer known: read everything again".to_owned(),
            operation: None,
        });
        let (ground, news) = (self.ground.clone(), self.ground.news());
        let batches = stream::unfold((ground, news, seen), |(ground, mut news, mut seen)| async move {
            loop {
                // Marked before reading, so that nothing is missed in between.
                news.mark_unchanged();
                let events = ground.store.events_after(seen).await.ok()?;
                if let Some(last) = events.last() {
                    seen = last.id;
                    return Some((stream::iter(events), (ground, news, seen)));
                }
                news.changed().await.ok()?;
            }
        });
        Ok(stream::iter(notice).chain(batches.flatten()).boxed())
    }

    pub(super) async fn console(&self, name: &VmName) -> Result<Console, Problem> {
        let record = self.own(name).await?;
        self.ground.machines.running(&record).await?;
        let files = self.ground.machines.files(name).machine().map_err(|error| from_qemu(&error))?;
        let stream = UnixStream::connect(files.console()).await;
        let stream = stream.map_err(|error| system(&format!("reach the console of '{name}'"), error))?;
        Ok(Console(Box::new(stream)))
    }

    pub(super) async fn log(&self, name: &VmName, query: LogQuery) -> Result<Vec<u8>, Problem> {
        let record = self.load(name).await?;
        let path = match query.source {
            LogSource::Pager => match record.process {
                Some(process) => self.ground.config.runtime.join(format!("{}.log", process.pid)),
                None => return Ok(Vec::new()),
            },
            source => {
                self.own(name).await?;
                let files = self.ground.machines.files(name).machine().map_err(|error| from_qemu(&error))?;
                match (source, record.spec.driver) {
                    (LogSource::Console, _) => files.console_log(),
                    (_, Driver::Qemu) => files.log(),
                    (_, Driver::Libvirt) => self.ground.machines.domains().log_of(name)?,
                }
            }
        };
        let mut file = match tokio::fs::File::open(&path).await {
            // Nothing was said yet.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened.map_err(|error| system(&format!("read {}", path.display()), error))?,
        };
        let failed = |error| system(&format!("read {}", path.display()), error);
        let bytes = query.tail_bytes() as u64;
        let length = file.metadata().await.map_err(failed)?.len();
        file.seek(std::io::SeekFrom::Start(length.saturating_sub(bytes))).await.map_err(failed)?;
        let mut tail = Vec::new();
        file.take(bytes).read_to_end(&mut tail).await.map_err(failed)?;
        Ok(tail)
    }

    pub(super) async fn watch(
        &self,
        name: &VmName,
        query: WatchQuery,
    ) -> Result<BoxStream<'static, Result<Access, Problem>>, Problem> {
        let record = self.load(name).await?;
        let (machine, process) = self.ground.machines.running(&record).await?;
        if record.spec.local.is_none() {
            let detail = format!(
                "'{name}' has no far memory, so no pager that sees accesses: it was made without --local"
            );
            return Err(wrong_state(detail));
        }
        let host = machine.host_address(query.address).await.map_err(|error| from_qemu(&error))?;
        let accesses = self.ground.pagers.watch(process.pid, host).await?;
        let guest = query.address;
        let seen = accesses.map(move |access| {
            access.map(|access| Access {
                at_us: access.at_us,
                thread: access.thread,
                address: guest.wrapping_add(access.address.wrapping_sub(host)),
                write: access.write,
            })
        });
        Ok(seen.boxed())
    }
}
