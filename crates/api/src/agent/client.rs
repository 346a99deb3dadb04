//! A client of one agent: each method is one request.

use std::time::Duration;

use futures_util::stream::BoxStream;
use reqwest::Method;
use serde::Serialize;

use super::{
    Access, Attachment, AttachmentSet, AttachmentView, Console, DomainAttach, ElasticBounds, ElasticView,
    HostView, LogQuery, ResizePlan, ResizeRequest, SharedView, StopRequest, VmSpec, VmView, WatchQuery,
};
use crate::client::{ChangeOptions, Endpoint, HttpClient};
use crate::error::ApiError;
use crate::event::{Event, EventId};
use crate::generation::Generation;
use crate::name::{AttachmentId, GroupName, VmName};
use crate::operation::{Operation, OperationFilter, OperationId, WaitQuery};
use crate::serve::TlsFiles;

/// Body and query of requests that have none.
const NONE: Option<&()> = None;

/// How much later than a wait ends its answer may come.
const WAIT_SLACK: Duration = Duration::from_secs(10);

/// Asks one agent. Clones share their connections.
#[derive(Clone, Debug)]
pub struct AgentClient {
    http: HttpClient,
    options: ChangeOptions,
}

impl AgentClient {
    /// A client of the agent at `endpoint`, which changes things under generation 0 until it is told another one.
    pub fn new(endpoint: Endpoint, tls: Option<&TlsFiles>, token: Option<&str>) -> Result<Self, ApiError> {
        Ok(Self { http: HttpClient::new(endpoint, tls, token)?, options: ChangeOptions::default() })
    }

    /// The same client, with its connections, for the agent at another endpoint; none if one of the two is a Unix socket.
    pub fn at(&self, endpoint: Endpoint) -> Option<Self> {
        Some(Self { http: self.http.at(endpoint)?, options: self.options.clone() })
    }

    /// The same client, which changes things under `generation`.
    pub fn under(mut self, generation: Generation) -> Self {
        self.options.generation = generation;
        self
    }

    /// The same client, which changes things under the generation that the agent has seen last: what a person at the
    /// command line does.
    pub async fn under_present(self) -> Result<Self, ApiError> {
        let generation = self.host().await?.generation;
        Ok(self.under(generation))
    }

    /// The same client for one request, which is recognised when it is sent again.
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.options.key = Some(key.into());
        self
    }

    /// The brick in numbers, and the generation in force.
    pub async fn host(&self) -> Result<HostView, ApiError> {
        self.http.get("/v1/host", &NONE).await
    }

    /// All machines, by name.
    pub async fn vm_list(&self) -> Result<Vec<VmView>, ApiError> {
        self.http.get("/v1/vms", &NONE).await
    }

    /// One machine.
    pub async fn vm_show(&self, name: &VmName) -> Result<VmView, ApiError> {
        self.http.get(&format!("/v1/vms/{name}"), &NONE).await
    }

    /// Makes a machine.
    pub async fn vm_create(&self, spec: &VmSpec) -> Result<Operation, ApiError> {
        self.change(Method::POST, "/v1/vms", Some(spec)).await
    }

    /// Deletes a machine.
    pub async fn vm_delete(&self, name: &VmName) -> Result<Operation, ApiError> {
        self.change(Method::DELETE, &format!("/v1/vms/{name}"), NONE).await
    }

    /// Starts a stopped machine.
    pub async fn vm_start(&self, name: &VmName) -> Result<Operation, ApiError> {
        self.change(Method::POST, &format!("/v1/vms/{name}/start"), NONE).await
    }

    /// Stops a machine.
    pub async fn vm_stop(&self, name: &VmName, how: StopRequest) -> Result<Operation, ApiError> {
        self.change(Method::POST, &format!("/v1/vms/{name}/stop"), Some(&how)).await
    }

    /// Pauses a running machine.
    pub async fn vm_pause(&self, name: &VmName) -> Result<Operation, ApiError> {
        self.change(Method::POST, &format!("/v1/vms/{name}/pause"), NONE).await
    }

    /// Lets a paused machine go on.
    pub async fn vm_resume(&self, name: &VmName) -> Result<Operation, ApiError> {
        self.change(Method::POST, &format!("/v1/vms/{name}/resume"), NONE).await
    }

    /// What a resize would do.
    pub async fn vm_resize_plan(
        &self,
        name: &VmName,
        request: ResizeRequest,
    ) -> Result<ResizePlan, ApiError> {
        let request = ResizeRequest { plan: true, ..request };
        self.http.change(Method::POST, &format!("/v1/vms/{name}/resize"), &self.options, Some(&request)).await
    }

    /// Changes a machine's memory.
    pub async fn vm_resize(&self, name: &VmName, request: ResizeRequest) -> Result<Operation, ApiError> {
        let request = ResizeRequest { plan: false, ..request };
        self.change(Method::POST, &format!("/v1/vms/{name}/resize"), Some(&request)).await
    }

    /// How a machine follows its guest's need.
    pub async fn vm_elastic_show(&self, name: &VmName) -> Result<Option<ElasticView>, ApiError> {
        self.http.get(&format!("/v1/vms/{name}/elastic"), &NONE).await
    }

    /// Lets a machine follow its guest's need, or no longer.
    pub async fn vm_elastic_set(
        &self,
        name: &VmName,
        bounds: Option<ElasticBounds>,
    ) -> Result<Operation, ApiError> {
        let path = format!("/v1/vms/{name}/elastic");
        match bounds {
            Some(bounds) => self.change(Method::PUT, &path, Some(&bounds)).await,
            None => self.change(Method::DELETE, &path, NONE).await,
        }
    }

    /// Opens a machine's console.
    pub async fn vm_console(&self, name: &VmName) -> Result<Console, ApiError> {
        let stream = self.http.socket(&format!("/v1/vms/{name}/console")).await?;
        Ok(Console(Box::new(stream)))
    }

    /// The end of a machine's log.
    pub async fn vm_log(&self, name: &VmName, query: LogQuery) -> Result<Vec<u8>, ApiError> {
        self.http.get_bytes(&format!("/v1/vms/{name}/log"), &query).await
    }

    /// Each access to one page of a guest, until the stream is dropped.
    pub async fn vm_watch(
        &self,
        name: &VmName,
        query: WatchQuery,
    ) -> Result<BoxStream<'static, Result<Access, ApiError>>, ApiError> {
        self.http.follow(&format!("/v1/vms/{name}/watch"), &query, None).await
    }

    /// Gives far memory to a domain that somebody else started.
    pub async fn domain_attach(&self, domain: &str, request: &DomainAttach) -> Result<Operation, ApiError> {
        let domain = segment(domain);
        self.change(Method::POST, &format!("/v1/domains/{domain}/attach"), Some(request)).await
    }

    /// Brings all memory of such a domain home.
    pub async fn domain_detach(&self, name: &VmName) -> Result<Operation, ApiError> {
        self.change(Method::POST, &format!("/v1/domains/{name}/detach"), NONE).await
    }

    /// All physical attachments.
    pub async fn attachment_list(&self) -> Result<Vec<AttachmentView>, ApiError> {
        self.http.get("/v1/attachments", &NONE).await
    }

    /// Memory that several bricks share, with what opens it.
    pub async fn shared_show(&self, group: &GroupName) -> Result<SharedView, ApiError> {
        self.http.get(&format!("/v1/shared/{group}"), &NONE).await
    }

    /// One physical attachment.
    pub async fn attachment_show(&self, id: &AttachmentId) -> Result<AttachmentView, ApiError> {
        self.http.get(&format!("/v1/attachments/{id}"), &NONE).await
    }

    /// Physical attach.
    pub async fn attachment_create(&self, entry: &Attachment) -> Result<Operation, ApiError> {
        self.change(Method::POST, "/v1/attachments", Some(entry)).await
    }

    /// Physical detach.
    pub async fn attachment_delete(&self, id: &AttachmentId) -> Result<Operation, ApiError> {
        self.change(Method::DELETE, &format!("/v1/attachments/{id}"), NONE).await
    }

    /// Logical attach of several at once.
    pub async fn vm_attachments_set(
        &self,
        name: &VmName,
        set: &AttachmentSet,
    ) -> Result<Operation, ApiError> {
        self.change(Method::PUT, &format!("/v1/vms/{name}/attachments"), Some(set)).await
    }

    /// Logical attach.
    pub async fn vm_attachment_add(&self, name: &VmName, id: &AttachmentId) -> Result<Operation, ApiError> {
        self.change(Method::PUT, &format!("/v1/vms/{name}/attachments/{id}"), NONE).await
    }

    /// Logical detach.
    pub async fn vm_attachment_remove(
        &self,
        name: &VmName,
        id: &AttachmentId,
    ) -> Result<Operation, ApiError> {
        self.change(Method::DELETE, &format!("/v1/vms/{name}/attachments/{id}"), NONE).await
    }

    /// Operations, newest first.
    pub async fn operation_list(&self, filter: &OperationFilter) -> Result<Vec<Operation>, ApiError> {
        self.http.get("/v1/operations", filter).await
    }

    /// One operation.
    pub async fn operation_show(&self, id: OperationId) -> Result<Operation, ApiError> {
        self.http.get(&format!("/v1/operations/{id}"), &NONE).await
    }

    /// The operation when it has ended, or as it is when the time is over.
    pub async fn operation_wait(&self, id: OperationId, query: WaitQuery) -> Result<Operation, ApiError> {
        let within = Duration::from_secs(query.timeout.into()) + WAIT_SLACK;
        self.http.get_within(&format!("/v1/operations/{id}/wait"), &query, within).await
    }

    /// Asks a running operation to stop.
    pub async fn operation_cancel(&self, id: OperationId) -> Result<Operation, ApiError> {
        self.change(Method::POST, &format!("/v1/operations/{id}/cancel"), NONE).await
    }

    /// What happens, until the stream or the connection ends. Who comes back gives the last number it has seen.
    pub async fn events(
        &self,
        after: Option<EventId>,
    ) -> Result<BoxStream<'static, Result<Event, ApiError>>, ApiError> {
        self.http.follow("/v1/events", &NONE, after).await
    }

    /// Metrics in the text format of Prometheus.
    pub async fn metrics(&self) -> Result<String, ApiError> {
        let bytes = self.http.get_bytes("/metrics", &NONE).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Operation, ApiError> {
        self.http.change(method, path, &self.options, body).await
    }
}

/// `text` as one segment of a path. Names are such already; a domain's name is whatever its owner chose.
fn segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_segment_of_a_path() {
        assert_eq!(segment("web 1/../ä?"), "web%201%2F%2E%2E%2F%C3%A4%3F");
    }
}
