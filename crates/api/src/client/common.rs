//! What agents and controllers are asked alike: for machines that are there, for operations and for events.

use std::time::Duration;

use futures_util::stream::BoxStream;
use reqwest::Method;
use serde::Serialize;

use super::{ChangeOptions, HttpClient};
use crate::agent::{Access, Console, ElasticBounds, ElasticView, LogQuery, StopRequest, WatchQuery};
use crate::error::ApiError;
use crate::event::{Event, EventId};
use crate::name::VmName;
use crate::operation::{Operation, OperationFilter, OperationId, WaitQuery};

/// Body and query of requests that have none.
pub(crate) const NONE: Option<&()> = None;

/// How much later than a wait ends its answer may come.
const WAIT_SLACK: Duration = Duration::from_secs(10);

/// Asks an agent or a controller. Clones share their connections.
#[derive(Clone, Debug)]
pub struct CommonClient {
    pub(crate) http: HttpClient,
    pub(crate) options: ChangeOptions,
}

impl CommonClient {
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

    /// Deletes a machine.
    pub async fn vm_delete(&self, name: &VmName) -> Result<Operation, ApiError> {
        self.change(Method::DELETE, &format!("/v1/vms/{name}"), NONE).await
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

    pub(crate) async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Operation, ApiError> {
        self.http.change(method, path, &self.options, body).await
    }
}
