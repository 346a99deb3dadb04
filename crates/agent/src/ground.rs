//! What all work stands on: the store, the machines, the pagers, and the feed of events.

use std::sync::Arc;

use rackmem_api::{Event, EventId, Problem};
use rackmem_types::Bytes;
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
    pub(crate) async fn far<'a>(&'a self, vm: &'a VmRecord) -> Result<Option<Far<'a>>, Problem> {
        let Some(local) = vm.spec.local else { return Ok(None) };
        let far_max = self.far_max(vm).await?;
        Ok(Some(Far { local, servers: vm.memory_servers(&self.config.memory_servers), far_max }))
    }

    /// A VM that lives on attachments has no more far memory than these.
    async fn far_max(&self, vm: &VmRecord) -> Result<Option<Bytes>, Problem> {
        if vm.spec.attachments.is_empty() {
            return Ok(None);
        }
        let rows = self.store.attachment_list().await.map_err(from_store)?;
        let sum =
            rows.iter().filter(|row| row.vm.as_ref() == Some(vm.name())).map(|row| row.entry.size().0).sum();
        Ok(Some(Bytes(sum)))
    }

    /// Far memory that a VM can still get; `None` if its memory servers do not tell, or it has none.
    pub(crate) async fn far_free(&self, vm: &VmRecord) -> Result<Option<Bytes>, Problem> {
        if vm.spec.local.is_none() {
            return Ok(None);
        }
        servers::free_in_all(vm.memory_servers(&self.config.memory_servers)).await
    }
}
