//! A client of one controller: each method is one request.

use std::ops::Deref;

use reqwest::Method;

use super::{
    BrickNew, BrickView, ControllerView, DrainRequest, MachineNew, MachineResize, MachineView, PlanView,
    RackFile, ReasonView, ReservationNew, ReservationResize, ReservationView, Topology,
};
use crate::client::{ChangeOptions, CommonClient, Endpoint, HttpClient, NONE};
use crate::error::ApiError;
use crate::generation::Generation;
use crate::name::VmName;
use crate::operation::{Operation, OperationId};
use crate::serve::TlsFiles;

/// Asks one controller. Clones share their connections.
#[derive(Clone, Debug)]
pub struct ControllerClient(CommonClient);

impl Deref for ControllerClient {
    type Target = CommonClient;

    fn deref(&self) -> &CommonClient {
        &self.0
    }
}

impl ControllerClient {
    /// A client of the controller at `endpoint`, which changes things under generation 0 until it is told another one.
    pub fn new(endpoint: Endpoint, tls: Option<&TlsFiles>, token: Option<&str>) -> Result<Self, ApiError> {
        Ok(Self(CommonClient {
            http: HttpClient::new(endpoint, tls, token)?,
            options: ChangeOptions::default(),
        }))
    }

    /// The same client, which changes things under `generation`.
    pub fn under(mut self, generation: Generation) -> Self {
        self.0.options.generation = generation;
        self
    }

    /// The same client, which changes things under the present reign.
    pub async fn under_present(self) -> Result<Self, ApiError> {
        let generation = self.controller().await?.generation;
        Ok(self.under(generation))
    }

    /// The same client for one request, which is recognised when it is sent again.
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.0.options.key = Some(key.into());
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

    /// Gives a machine more or less memory while it runs.
    pub async fn vm_resize(&self, name: &VmName, request: MachineResize) -> Result<Operation, ApiError> {
        self.change(Method::POST, &format!("/v1/vms/{name}/resize"), Some(&request)).await
    }

    /// Has what is reserved for a machine fit a guest of that size.
    pub async fn vm_fit(&self, name: &VmName, request: MachineResize) -> Result<Operation, ApiError> {
        self.change(Method::POST, &format!("/v1/vms/{name}/fit"), Some(&request)).await
    }

    /// Brick by brick, what each means for a request.
    pub async fn why(&self, request: &ReservationNew) -> Result<Vec<ReasonView>, ApiError> {
        self.http.change(Method::POST, "/v1/why", &self.options, Some(request)).await
    }

    /// Brick by brick, what each means now for the request of an operation.
    pub async fn operation_why(&self, id: OperationId) -> Result<Vec<ReasonView>, ApiError> {
        self.http.get(&format!("/v1/operations/{id}/why"), &NONE).await
    }
}
