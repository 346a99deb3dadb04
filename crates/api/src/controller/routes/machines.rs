//! `/v1/vms`: virtual machines over the racks, and what changes them.

use axum::Json;
use utoipa_axum::router::OpenApiRouter;

use super::{Served, by, declare};
use crate::agent::{ElasticBounds, StopRequest};
use crate::answer::{Accepted, ChangeAnswers};
use crate::change::ChangeHeaders;
use crate::controller::{ControllerApi, MachineNew, MachineResize, MachineView, Who};
use crate::extract::{Changing, InPath, Nothing};
use crate::name::VmName;
use crate::problem::Problem;

pub(super) fn routes<T: ControllerApi>() -> OpenApiRouter {
    let router = declare!(OpenApiRouter::default(), T: vm_list, vm_show, vm_create, vm_delete);
    let router = declare!(router, T: vm_start, vm_stop, vm_pause, vm_resume, vm_resize, vm_fit);
    declare!(router, T: vm_elastic_set, vm_elastic_end)
}

/// The virtual machines that one may see, by name.
#[utoipa::path(
    get, path = "/v1/vms", tag = "vms", operation_id = "vm_list",
    responses(
        (status = 200, body = Vec<MachineView>),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn vm_list<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
) -> Result<Json<Vec<MachineView>>, Problem> {
    who.user()?;
    controller.vm_list(who).await.map(Json)
}

/// One virtual machine, with what its agent says of it.
#[utoipa::path(
    get, path = "/v1/vms/{name}", tag = "vms", operation_id = "vm_show",
    params(("name" = VmName, Path, description = "The machine.")),
    responses(
        (status = 200, body = MachineView),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn vm_show<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<VmName>,
) -> Result<Json<MachineView>, Problem> {
    who.user()?;
    controller.vm_show(who, name).await.map(Json)
}

/// Makes a virtual machine: chooses its brick, reserves, attaches, starts. If one of these fails, all are undone.
#[utoipa::path(
    post, path = "/v1/vms", tag = "vms", operation_id = "vm_create",
    params(ChangeHeaders), request_body = MachineNew, responses(ChangeAnswers),
)]
async fn vm_create<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    Changing { change, body }: Changing<MachineNew>,
) -> Result<Accepted, Problem> {
    who.user()?;
    controller.vm_create(by(change, &who), who, body).await.map(Accepted)
}

/// Deletes a machine in whatever state it is, and releases its reservation.
#[utoipa::path(
    delete, path = "/v1/vms/{name}", tag = "vms", operation_id = "vm_delete",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders), responses(ChangeAnswers),
)]
async fn vm_delete<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<VmName>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    who.user()?;
    controller.vm_delete(by(change, &who), who, name).await.map(Accepted)
}

/// Starts a stopped machine, with the memory that it had.
#[utoipa::path(
    post, path = "/v1/vms/{name}/start", tag = "vms", operation_id = "vm_start",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders), responses(ChangeAnswers),
)]
async fn vm_start<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<VmName>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    who.user()?;
    controller.vm_start(by(change, &who), who, name).await.map(Accepted)
}

/// Stops a machine; what is reserved for it stays.
#[utoipa::path(
    post, path = "/v1/vms/{name}/stop", tag = "vms", operation_id = "vm_stop",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders), request_body = StopRequest, responses(ChangeAnswers),
)]
async fn vm_stop<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<VmName>,
    Changing { change, body }: Changing<StopRequest>,
) -> Result<Accepted, Problem> {
    who.user()?;
    controller.vm_stop(by(change, &who), who, name, body).await.map(Accepted)
}

/// Pauses a running machine; what is reserved for it stays.
#[utoipa::path(
    post, path = "/v1/vms/{name}/pause", tag = "vms", operation_id = "vm_pause",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders), responses(ChangeAnswers),
)]
async fn vm_pause<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<VmName>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    who.user()?;
    controller.vm_pause(by(change, &who), who, name).await.map(Accepted)
}

/// Lets a paused machine go on.
#[utoipa::path(
    post, path = "/v1/vms/{name}/resume", tag = "vms", operation_id = "vm_resume",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders), responses(ChangeAnswers),
)]
async fn vm_resume<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<VmName>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    who.user()?;
    controller.vm_resume(by(change, &who), who, name).await.map(Accepted)
}

/// Gives a machine more or less memory while it runs, and reserves or releases what that takes or frees.
#[utoipa::path(
    post, path = "/v1/vms/{name}/resize", tag = "vms", operation_id = "vm_resize",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders), request_body = MachineResize, responses(ChangeAnswers),
)]
async fn vm_resize<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<VmName>,
    Changing { change, body }: Changing<MachineResize>,
) -> Result<Accepted, Problem> {
    who.user()?;
    controller.vm_resize(by(change, &who), who, name, body).await.map(Accepted)
}

/// Has what is reserved for a machine fit a guest of that size; the guest itself is not changed.
#[utoipa::path(
    post, path = "/v1/vms/{name}/fit", tag = "vms", operation_id = "vm_fit",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders), request_body = MachineResize, responses(ChangeAnswers),
)]
async fn vm_fit<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<VmName>,
    Changing { change, body }: Changing<MachineResize>,
) -> Result<Accepted, Problem> {
    who.borrower()?;
    controller.vm_fit(by(change, &who), who, name, body).await.map(Accepted)
}

/// Lets a machine follow its guest's need between two sizes. What it grows by its agent has reserved.
#[utoipa::path(
    put, path = "/v1/vms/{name}/elastic", tag = "vms", operation_id = "vm_elastic_set",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders), request_body = ElasticBounds, responses(ChangeAnswers),
)]
async fn vm_elastic_set<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<VmName>,
    Changing { change, body }: Changing<ElasticBounds>,
) -> Result<Accepted, Problem> {
    who.user()?;
    controller.vm_elastic_set(by(change, &who), who, name, Some(body)).await.map(Accepted)
}

/// Ends following; the machine keeps what it has.
#[utoipa::path(
    delete, path = "/v1/vms/{name}/elastic", tag = "vms", operation_id = "vm_elastic_end",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders), responses(ChangeAnswers),
)]
async fn vm_elastic_end<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<VmName>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    who.user()?;
    controller.vm_elastic_set(by(change, &who), who, name, None).await.map(Accepted)
}
