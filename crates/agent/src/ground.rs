//! What all work stands on: the store, the machines, the pagers, and the feed of events.

use std::sync::Arc;

use rackmem_api::agent::Attachment;
use rackmem_api::{Event, EventId, Problem};
use rackmem_types::{Bytes, ServerAddress};
use tokio::sync::watch;

use crate::config::AgentConfig;
use crate::machines::Machines;
use crate::pagers::{Far, Pagers};
use crate::problem::from_store;
use crate::servers;
use crate::store::Store;
use crate::vm::VmRecord;

/// Shared by all that an agent does at a time.
#[derive(Debug)]
pub(crate) struct Ground {
    /// What it was told at its start.
    pub(crate) config: AgentConfig,
    /// What it remembers.
    pub(crate) store: Store,
    /// What it runs.
    pub(crate) machines: Machines,
    /// What serves the faults of what it runs.
    pub(crate) pagers: Pagers,
    /// The newest event; whoever waits for anything waits for this to change.
    news: watch::Sender<EventId>,
}

impl Ground {
    /// The ground of a new agent.
    pub(crate) async fn new(
        config: AgentConfig,
        store: Store,
        machines: Machines,
    ) -> Result<Arc<Self>, crate::StoreError> {
        let (_, newest) = store.event_range().await?;
        let pagers = Pagers::new(&config);
        Ok(Arc::new(Self { config, store, machines, pagers, news: watch::Sender::new(newest) }))
    }

    /// Tells those who wait that something happened.
    pub(crate) fn tell(&self, event: &Event) {
        self.news.send_modify(|newest| *newest = event.id.max(*newest));
    }

    /// Notes that something happened, and tells.
    pub(crate) async fn event(&self, kind: &str, target: &str, detail: &str) {
        match self.store.event_add(kind, target, detail).await {
            Ok(event) => self.tell(&event),
            Err(error) => tracing::error!(%error, kind, target, detail, "an event cannot be noted"),
        }
    }

    /// Changes when something happens.
    pub(crate) fn news(&self) -> watch::Receiver<EventId> {
        self.news.subscribe()
    }

    /// What the pager of a VM is told; `None` for a VM whose memory is all local.
    pub(crate) async fn far(&self, vm: &VmRecord) -> Result<Option<Far>, Problem> {
        let Some(local) = vm.spec.local else { return Ok(None) };
        let entries = self.entries(vm).await?;
        // A VM that lives on attachments has no more far memory than these.
        let sum = entries.iter().map(|entry| entry.size().0).sum();
        let far_max = (!entries.is_empty()).then_some(Bytes(sum));
        let servers = self.lenders(vm, &entries);
        let given = entries.into_iter().filter(|entry| entry.segment.is_some()).collect();
        Ok(Some(Far { local, servers, given, far_max }))
    }

    /// The attachments of a VM.
    async fn entries(&self, vm: &VmRecord) -> Result<Vec<Attachment>, Problem> {
        let mut entries = Vec::new();
        for id in &vm.spec.attachments {
            entries.push(self.store.attachment(id).await.map_err(from_store)?.entry);
        }
        Ok(entries)
    }

    /// The sizes of a VM's attachments.
    pub(crate) async fn lent(&self, vm: &VmRecord) -> Result<Vec<u64>, Problem> {
        Ok(self.entries(vm).await?.iter().map(|entry| entry.size().0).collect())
    }

    /// The memory servers on which a VM's pager reserves segments itself: not those that only have one that was made for it.
    fn lenders(&self, vm: &VmRecord, entries: &[Attachment]) -> Vec<ServerAddress> {
        let lends = |server: &&ServerAddress| {
            let mut of = entries.iter().filter(|entry| entry.server == **server).peekable();
            of.peek().is_none() || of.any(|entry| entry.segment.is_none())
        };
        vm.memory_servers(&self.config.memory_servers).iter().filter(lends).cloned().collect()
    }

    /// Far memory that a VM can still get, beyond what a guest of `size` has; `None` if its memory servers do not tell, or it has
    /// none.
    pub(crate) async fn far_free(&self, vm: &VmRecord, size: Bytes) -> Result<Option<Bytes>, Problem> {
        if vm.spec.local.is_none() {
            return Ok(None);
        }
        let entries = self.entries(vm).await?;
        let Some(free) = servers::free_in_all(&self.lenders(vm, &entries)).await? else { return Ok(None) };
        let given: u64 =
            entries.iter().filter(|entry| entry.segment.is_some()).map(|entry| entry.size().0).sum();
        let promised = match vm.alive() {
            Some(process) if given > 0 => {
                let used = self.pagers.stats(process.pid).await.map_or(0, |stats| stats.far.0);
                // A controller lends a place for each of the guest's pages; who lends by hand may count on the local limit.
                let is_by_hand = self.config.lender.is_none();
                let local = vm.spec.local.filter(|_| is_by_hand).unwrap_or_default();
                used.max(size.0.saturating_sub(local.0))
            }
            _ => 0,
        };
        Ok(Some(Bytes(free.0.saturating_add(given.saturating_sub(promised)))))
    }
}
