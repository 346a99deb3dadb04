//! A client of one agent: each method is one request.

use std::ops::Deref;

use reqwest::Method;

use super::{
    Attachment, AttachmentSet, AttachmentView, DomainAttach, HostView, ResizePlan, ResizeRequest, SharedView,
    VmSpec, VmView,
};
use crate::client::{ChangeOptions, CommonClient, Endpoint, HttpClient, NONE};
use crate::error::ApiError;
use crate::generation::Generation;
use crate::name::{AttachmentId, GroupName, VmName};
use crate::operation::Operation;
use crate::serve::TlsFiles;

/// Asks one agent. Clones share their connections.
#[derive(Clone, Debug)]
pub struct AgentClient(CommonClient);

impl Deref for AgentClient {
    type Target = CommonClient;

    fn deref(&self) -> &CommonClient {
        &self.0
    }
}

impl AgentClient {
    /// A client of the agent at `endpoint`, which changes things under generation 0 until it is told another one.
    pub fn new(endpoint: Endpoint, tls: Option<&TlsFiles>, token: Option<&str>) -> Result<Self, ApiError> {
        Ok(Self(CommonClient {
            http: HttpClient::new(endpoint, tls, token)?,
            options: ChangeOptions::default(),
        }))
    }

    /// The same client, with its connections, for the agent at another endpoint; none if one of the two is a Unix socket.
    pub fn at(&self, endpoint: Endpoint) -> Option<Self> {
        Some(Self(CommonClient { http: self.http.at(endpoint)?, options: self.options.clone() }))
    }

    /// The same client, which changes things under `generation`.
    pub fn under(mut self, generation: Generation) -> Self {
        self.0.options.generation = generation;
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
        self.0.options.key = Some(key.into());
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
