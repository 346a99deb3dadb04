//! A client of one controller: each method is one request.

use std::time::Duration;

use futures_util::stream::BoxStream;
use reqwest::Method;
use serde::Serialize;

use super::{
    BrickNew, BrickView, ControllerView, DrainRequest, MachineNew, MachineResize, MachineView, PlanView,
    RackFile, ReasonView, ReservationNew, ReservationResize, ReservationView, Topology,
};
use crate::agent::{Access, Console, ElasticBounds, ElasticView, LogQuery, StopRequest, WatchQuery};
use crate::client::{ChangeOptions, Endpoint, HttpClient};
use crate::error::ApiError;
use crate::event::{Event, EventId};
use crate::generation::Generation;
use crate::name::VmName;
use crate::operation::{Operation, OperationFilter, OperationId, WaitQuery};
use crate::serve::TlsFiles;

/// Body and query of requests that have none.
const NONE: Option<&()> = None;

/// How much later than a wait ends its answer may come.
const WAIT_SLACK: Duration = Duration::from_secs(10);

/// Asks one controller. Clones share their connections.
#[derive(Clone, Debug)]
pub struct ControllerClient {
    http: HttpClient,
    options: ChangeOptions,
}

impl ControllerClient {
    /// A client of the controller at `endpoint`, which changes things under generation 0 until it is told another one.
    pub fn new(endpoint: Endpoint, tls: Option<&TlsFiles>, token: Option<&str>) -> Result<Self, ApiError> {
        Ok(Self { http: HttpClient::new(endpoint, tls, token)?, options: ChangeOptions::default() })
    }

    /// The same client, which changes things under `generation`.
    pub fn under(mut self, generation: Generation) -> Self {
        self.options.generation = generation;
        self
    }

    /// The same client, which changes things under the present reign.
    pub async fn under_present(self) -> Result<Self, ApiError> {
        let generation = self.controller().await?.generation;
        Ok(self.under(generation))
    }

    /// The same client for one request, which is recognised when it is sent again.
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.options.key = Some(key.into());
        self
    }

    /// The controller in numbers.
    pub async fn controller(&self) -> Result<ControllerView, ApiError> {
        self.http.get("/v1/controller", &NONE).await
    }

    /// The graph.
    pub async fn topology(&self) -> Result<Topology, ApiError> {
        self.http.get("/v1/topology", &NONE).await
    }

    /// All bricks.
    pub async fn brick_list(&self) -> Result<Vec<BrickView>, ApiError> {
        self.http.get("/v1/bricks", &NONE).await
    }

    /// One brick.
    pub async fn brick_show(&self, name: &str) -> Result<BrickView, ApiError> {
        self.http.get(&format!("/v1/bricks/{name}"), &NONE).await
    }

    /// Registers a brick and its cables.
    pub async fn brick_register(&self, brick: &BrickNew) -> Result<Operation, ApiError> {
        self.change(Method::POST, "/v1/bricks", Some(brick)).await
    }

    /// Registers all that is in a rack file.
    pub async fn rack_register(&self, file: &RackFile) -> Result<Operation, ApiError> {
        self.change(Method::POST, "/v1/racks", Some(file)).await
    }

    /// Drains a brick, or no longer.
    pub async fn brick_drain(&self, name: &str, request: DrainRequest) -> Result<Operation, ApiError> {
        self.change(Method::POST, &format!("/v1/bricks/{name}/drain"), Some(&request)).await
    }

    /// Removes a brick.
    pub async fn brick_remove(&self, name: &str) -> Result<Operation, ApiError> {
        self.change(Method::DELETE, &format!("/v1/bricks/{name}"), NONE).await
    }

    /// The reservations that one may see.
    pub async fn reservation_list(&self) -> Result<Vec<ReservationView>, ApiError> {
        self.http.get("/v1/reservations", &NONE).await
    }

    /// One reservation.
    pub async fn reservation_show(&self, id: u64) -> Result<ReservationView, ApiError> {
        self.http.get(&format!("/v1/reservations/{id}"), &NONE).await
    }

    /// What a reservation would do.
    pub async fn reservation_preview(&self, request: &ReservationNew) -> Result<PlanView, ApiError> {
        let request = ReservationNew { preview: true, ..request.clone() };
        self.http.change(Method::POST, "/v1/reservations", &self.options, Some(&request)).await
    }

    /// Reserves.
    pub async fn reservation_create(&self, request: &ReservationNew) -> Result<Operation, ApiError> {
        let request = ReservationNew { preview: false, ..request.clone() };
        self.change(Method::POST, "/v1/reservations", Some(&request)).await
    }

    /// Carries out a reservation.
    pub async fn reservation_apply(&self, id: u64) -> Result<Operation, ApiError> {
        self.change(Method::POST, &format!("/v1/reservations/{id}/apply"), NONE).await
    }

    /// Gives a reservation more or less memory.
    pub async fn reservation_resize(
        &self,
        id: u64,
        request: ReservationResize,
    ) -> Result<Operation, ApiError> {
        self.change(Method::POST, &format!("/v1/reservations/{id}/resize"), Some(&request)).await
    }

    /// Ends a reservation.
    pub async fn reservation_release(&self, id: u64) -> Result<Operation, ApiError> {
        self.change(Method::DELETE, &format!("/v1/reservations/{id}"), NONE).await
    }

    /// The virtual machines that one may see.
    pub async fn vm_list(&self) -> Result<Vec<MachineView>, ApiError> {
        self.http.get("/v1/vms", &NONE).await
    }

    /// One virtual machine, with what its agent says of it.
    pub async fn vm_show(&self, name: &VmName) -> Result<MachineView, ApiError> {
        self.http.get(&format!("/v1/vms/{name}"), &NONE).await
    }

    /// Makes a virtual machine.
    pub async fn vm_create(&self, new: &MachineNew) -> Result<Operation, ApiError> {
        self.change(Method::POST, "/v1/vms", Some(new)).await
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

    /// Gives a machine more or less memory while it runs.
    pub async fn vm_resize(&self, name: &VmName, request: MachineResize) -> Result<Operation, ApiError> {
        self.change(Method::POST, &format!("/v1/vms/{name}/resize"), Some(&request)).await
    }

    /// Has what is reserved for a machine fit a guest of that size.
    pub async fn vm_fit(&self, name: &VmName, request: MachineResize) -> Result<Operation, ApiError> {
        self.change(Method::POST, &format!("/v1/vms/{name}/fit"), Some(&request)).await
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

    /// Brick by brick, what each means for a request.
    pub async fn why(&self, request: &ReservationNew) -> Result<Vec<ReasonView>, ApiError> {
        self.http.change(Method::POST, "/v1/why", &self.options, Some(request)).await
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

    /// Brick by brick, what each means now for the request of an operation.
    pub async fn operation_why(&self, id: OperationId) -> Result<Vec<ReasonView>, ApiError> {
        self.http.get(&format!("/v1/operations/{id}/why"), &NONE).await
    }

    /// What happens, until the stream or the connection ends.
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
