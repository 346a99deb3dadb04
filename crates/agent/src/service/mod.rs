//! The agent as its API shows it (S7): each request is judged here, and becomes an operation or an answer.

mod attachments;
mod changes;
mod domains;
mod questions;
mod resizes;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use rackmem_api::agent::{
    Access, AgentApi, Attachment, AttachmentSet, AttachmentView, Console, DomainAttach, ElasticBounds,
    ElasticView, HostView, LogQuery, ResizePlan, ResizeRequest, SharedView, StopRequest, VmSpec, VmView,
    WatchQuery,
};
use rackmem_api::operation::{OperationFilter, WaitQuery};
use rackmem_api::problem::ProblemType;
use rackmem_api::{AttachmentId, Change, Event, EventId, GroupName, Operation, OperationId, Problem, VmName};

use crate::engine::Engine;
use crate::ground::Ground;
use crate::metrics;
use crate::problem::from_store;
use crate::store::now_ms;
use crate::vm::VmRecord;

/// An SDM agent. Clones are the same agent.
#[derive(Clone, Debug)]
pub struct Agent {
    ground: Arc<Ground>,
    engine: Arc<Engine>,
    started_ms: u64,
}

impl Agent {
    /// An agent over an engine.
    pub(crate) fn new(ground: Arc<Ground>, engine: Arc<Engine>) -> Self {
        Self { ground, engine, started_ms: now_ms() }
    }

    async fn load(&self, name: &VmName) -> Result<VmRecord, Problem> {
        self.ground.store.vm(name).await.map_err(from_store)
    }

    /// Judges a change; answers the operation that the same request began before.
    async fn admit(&self, change: &Change) -> Result<Option<Operation>, Problem> {
        self.ground.store.admit(change).await.map_err(from_store)
    }

    /// Waits until `id` has ended, or until `patience` is over; the operation as it then is.
    async fn wait(&self, id: OperationId, patience: Duration) -> Result<Operation, Problem> {
        let mut news = self.ground.news();
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let operation = self.ground.store.operation(id).await.map_err(from_store)?;
            if operation.state.is_final() {
                return Ok(operation);
            }
            if tokio::time::timeout_at(deadline, news.changed()).await.is_err() {
                return Ok(operation);
            }
        }
    }
}

impl AgentApi for Agent {
    async fn host(&self) -> Result<HostView, Problem> {
        self.host_view().await
    }

    async fn vm_list(&self) -> Result<Vec<VmView>, Problem> {
        self.views().await
    }

    async fn vm_show(&self, name: VmName) -> Result<VmView, Problem> {
        let record = self.load(&name).await?;
        Ok(self.view(&record).await)
    }

    async fn vm_create(&self, change: Change, spec: VmSpec) -> Result<Operation, Problem> {
        if let Some(operation) = self.admit(&change).await? {
            return Ok(operation);
        }
        self.create(&change, spec).await
    }

    async fn vm_delete(&self, change: Change, name: VmName) -> Result<Operation, Problem> {
        if let Some(operation) = self.admit(&change).await? {
            return Ok(operation);
        }
        self.delete(&change, &name).await
    }

    async fn vm_start(&self, change: Change, name: VmName) -> Result<Operation, Problem> {
        if let Some(operation) = self.admit(&change).await? {
            return Ok(operation);
        }
        self.start(&change, &name).await
    }

    async fn vm_stop(&self, change: Change, name: VmName, how: StopRequest) -> Result<Operation, Problem> {
        if let Some(operation) = self.admit(&change).await? {
            return Ok(operation);
        }
        self.stop(&change, &name, how).await
    }

    async fn vm_pause(&self, change: Change, name: VmName) -> Result<Operation, Problem> {
        if let Some(operation) = self.admit(&change).await? {
            return Ok(operation);
        }
        self.pause(&change, &name).await
    }

    async fn vm_resume(&self, change: Change, name: VmName) -> Result<Operation, Problem> {
        if let Some(operation) = self.admit(&change).await? {
            return Ok(operation);
        }
        self.resume(&change, &name).await
    }

    async fn vm_resize_plan(&self, name: VmName, request: ResizeRequest) -> Result<ResizePlan, Problem> {
        self.resize_plan(&name, request).await
    }

    async fn vm_resize(
        &self,
        change: Change,
        name: VmName,
        request: ResizeRequest,
    ) -> Result<Operation, Problem> {
        if let Some(operation) = self.admit(&change).await? {
            return Ok(operation);
        }
        self.resize(&change, &name, request).await
    }

    async fn vm_elastic_show(&self, name: VmName) -> Result<Option<ElasticView>, Problem> {
        let record = self.load(&name).await?;
        Ok(record.elastic.map(|bounds| ElasticView { bounds, decisions: record.decisions }))
    }

    async fn vm_elastic_set(
        &self,
        change: Change,
        name: VmName,
        bounds: Option<ElasticBounds>,
    ) -> Result<Operation, Problem> {
        if let Some(operation) = self.admit(&change).await? {
            return Ok(operation);
        }
        self.elastic_set(&change, &name, bounds).await
    }

    async fn vm_console(&self, name: VmName) -> Result<Console, Problem> {
        self.console(&name).await
    }

    async fn vm_log(&self, name: VmName, query: LogQuery) -> Result<Vec<u8>, Problem> {
        self.log(&name, query).await
    }

    async fn vm_watch(
        &self,
        name: VmName,
        query: WatchQuery,
    ) -> Result<BoxStream<'static, Result<Access, Problem>>, Problem> {
        self.watch(&name, query).await
    }

    async fn domain_attach(
        &self,
        change: Change,
        domain: String,
        request: DomainAttach,
    ) -> Result<Operation, Problem> {
        if let Some(operation) = self.admit(&change).await? {
            return Ok(operation);
        }
        self.attach_domain(&change, &domain, request).await
    }

    async fn domain_detach(&self, change: Change, name: VmName) -> Result<Operation, Problem> {
        if let Some(operation) = self.admit(&change).await? {
            return Ok(operation);
        }
        self.detach_domain(&change, &name).await
    }

    async fn attachment_list(&self) -> Result<Vec<AttachmentView>, Problem> {
        self.attachments().await
    }

    async fn attachment_show(&self, id: AttachmentId) -> Result<AttachmentView, Problem> {
        self.attachment(&id).await
    }

    async fn shared_show(&self, group: GroupName) -> Result<SharedView, Problem> {
        self.shared(&group).await
    }

    async fn attachment_create(&self, change: Change, entry: Attachment) -> Result<Operation, Problem> {
        if let Some(operation) = self.admit(&change).await? {
            return Ok(operation);
        }
        self.attach(&change, entry).await
    }

    async fn attachment_delete(&self, change: Change, id: AttachmentId) -> Result<Operation, Problem> {
        if let Some(operation) = self.admit(&change).await? {
            return Ok(operation);
        }
        self.detach(&change, &id).await
    }

    async fn vm_attachments_set(
        &self,
        change: Change,
        name: VmName,
        set: AttachmentSet,
    ) -> Result<Operation, Problem> {
        if let Some(operation) = self.admit(&change).await? {
            return Ok(operation);
        }
        self.exchange(&change, &name, &set.attachments).await
    }

    async fn vm_attachment_add(
        &self,
        change: Change,
        name: VmName,
        id: AttachmentId,
    ) -> Result<Operation, Problem> {
        if let Some(operation) = self.admit(&change).await? {
            return Ok(operation);
        }
        self.give(&change, &name, &id).await
    }

    async fn vm_attachment_remove(
        &self,
        change: Change,
        name: VmName,
        id: AttachmentId,
    ) -> Result<Operation, Problem> {
        if let Some(operation) = self.admit(&change).await? {
            return Ok(operation);
        }
        self.take_back(&change, &name, &id).await
    }

    async fn operation_list(&self, filter: OperationFilter) -> Result<Vec<Operation>, Problem> {
        self.ground.store.operation_list(&filter).await.map_err(from_store)
    }

    async fn operation_show(&self, id: OperationId) -> Result<Operation, Problem> {
        self.ground.store.operation(id).await.map_err(from_store)
    }

    async fn operation_wait(&self, id: OperationId, query: WaitQuery) -> Result<Operation, Problem> {
        let seconds = query.timeout.min(rackmem_api::operation::WAIT_MAX_S);
        self.wait(id, Duration::from_secs(seconds.into())).await
    }

    async fn operation_cancel(&self, change: Change, id: OperationId) -> Result<Operation, Problem> {
        if let Some(operation) = self.admit(&change).await? {
            return Ok(operation);
        }
        self.cancel(id).await
    }

    async fn events(&self, after: Option<EventId>) -> Result<BoxStream<'static, Event>, Problem> {
        self.follow(after).await
    }

    async fn metrics(&self) -> Result<String, Problem> {
        let (host, vms) = (self.host_view().await?, self.views().await?);
        metrics::text(&host, &vms).map_err(|error| Problem::new(ProblemType::Internal, error.to_string()))
    }
}
