//! `/v1/vms` and `/v1/domains`: what changes machines.

use axum::Json;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;

use super::declare;
use super::served::Served;
use crate::agent::{AgentApi, DomainAttach, ElasticBounds, ResizePlan, ResizeRequest, StopRequest, VmSpec};
use crate::answer::{Accepted, ChangeAnswers};
use crate::change::ChangeHeaders;
use crate::extract::{Changing, InPath, Nothing};
use crate::name::VmName;
use crate::problem::Problem;

pub(super) fn routes<T: AgentApi>() -> OpenApiRouter {
    let router =
        declare!(OpenApiRouter::default(), T: vm_create, vm_delete, vm_start, vm_stop, vm_pause, vm_resume);
    declare!(router, T: vm_resize, vm_elastic_set, vm_elastic_end, domain_attach, domain_detach)
}

/// Makes a virtual machine, and starts it unless told otherwise.
#[utoipa::path(
    post, path = "/v1/vms", tag = "vms", operation_id = "vm_create",
    params(ChangeHeaders), request_body = VmSpec, responses(ChangeAnswers),
)]
async fn vm_create<T: AgentApi>(
    Served(agent): Served<T>,
    Changing { change, body }: Changing<VmSpec>,
) -> Result<Accepted, Problem> {
    agent.vm_create(change, body).await.map(Accepted)
}

/// Deletes a machine in whatever state it is, and gives back all that it had.
#[utoipa::path(
    delete, path = "/v1/vms/{name}", tag = "vms", operation_id = "vm_delete",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders), responses(ChangeAnswers),
)]
async fn vm_delete<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(name): InPath<VmName>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    agent.vm_delete(change, name).await.map(Accepted)
}

/// Starts a stopped machine.
#[utoipa::path(
    post, path = "/v1/vms/{name}/start", tag = "vms", operation_id = "vm_start",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders), responses(ChangeAnswers),
)]
async fn vm_start<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(name): InPath<VmName>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    agent.vm_start(change, name).await.map(Accepted)
}

/// Stops a machine: asks the guest, or turns it off.
#[utoipa::path(
    post, path = "/v1/vms/{name}/stop", tag = "vms", operation_id = "vm_stop",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders),
    request_body = StopRequest, responses(ChangeAnswers),
)]
async fn vm_stop<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(name): InPath<VmName>,
    Changing { change, body }: Changing<StopRequest>,
) -> Result<Accepted, Problem> {
    body.check()?;
    agent.vm_stop(change, name, body).await.map(Accepted)
}

/// Pauses a running machine.
#[utoipa::path(
    post, path = "/v1/vms/{name}/pause", tag = "vms", operation_id = "vm_pause",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders), responses(ChangeAnswers),
)]
async fn vm_pause<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(name): InPath<VmName>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    agent.vm_pause(change, name).await.map(Accepted)
}

/// Lets a paused machine go on.
#[utoipa::path(
    post, path = "/v1/vms/{name}/resume", tag = "vms", operation_id = "vm_resume",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders), responses(ChangeAnswers),
)]
async fn vm_resume<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(name): InPath<VmName>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    agent.vm_resume(change, name).await.map(Accepted)
}

/// Changes a machine's memory, or its local limit, while it runs; or only tells what would be done.
#[utoipa::path(
    post, path = "/v1/vms/{name}/resize", tag = "vms", operation_id = "vm_resize",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders),
    request_body = ResizeRequest,
    responses((status = 200, description = "What would be done.", body = ResizePlan), ChangeAnswers),
)]
async fn vm_resize<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(name): InPath<VmName>,
    Changing { change, body }: Changing<ResizeRequest>,
) -> Result<Response, Problem> {
    if body.plan {
        return Ok(Json(agent.vm_resize_plan(name, body).await?).into_response());
    }
    Ok(Accepted(agent.vm_resize(change, name, body).await?).into_response())
}

/// Lets a machine follow its guest's need between two sizes.
#[utoipa::path(
    put, path = "/v1/vms/{name}/elastic", tag = "vms", operation_id = "vm_elastic_set",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders),
    request_body = ElasticBounds, responses(ChangeAnswers),
)]
async fn vm_elastic_set<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(name): InPath<VmName>,
    Changing { change, body }: Changing<ElasticBounds>,
) -> Result<Accepted, Problem> {
    agent.vm_elastic_set(change, name, Some(body)).await.map(Accepted)
}

/// Ends following; the machine keeps what it has.
#[utoipa::path(
    delete, path = "/v1/vms/{name}/elastic", tag = "vms", operation_id = "vm_elastic_end",
    params(("name" = VmName, Path, description = "The machine."), ChangeHeaders), responses(ChangeAnswers),
)]
async fn vm_elastic_end<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(name): InPath<VmName>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    agent.vm_elastic_set(change, name, None).await.map(Accepted)
}

/// Gives far memory to a domain that somebody else started.
#[utoipa::path(
    post, path = "/v1/domains/{domain}/attach", tag = "vms", operation_id = "domain_attach",
    params(("domain" = String, Path, description = "libvirt's name, or a process id."), ChangeHeaders),
    request_body = DomainAttach, responses(ChangeAnswers),
)]
async fn domain_attach<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(domain): InPath<String>,
    Changing { change, body }: Changing<DomainAttach>,
) -> Result<Accepted, Problem> {
    agent.domain_attach(change, domain, body).await.map(Accepted)
}

/// Brings all memory of such a domain home and leaves it as it was found.
#[utoipa::path(
    post, path = "/v1/domains/{name}/detach", tag = "vms", operation_id = "domain_detach",
    params(("name" = VmName, Path, description = "Its name in the agent's list."), ChangeHeaders),
    responses(ChangeAnswers),
)]
async fn domain_detach<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(name): InPath<VmName>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    agent.domain_detach(change, name).await.map(Accepted)
}
