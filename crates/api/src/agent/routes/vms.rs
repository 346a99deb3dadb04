//! `/v1/vms`: what reads.

use axum::Json;
use axum::response::IntoResponse;
use utoipa_axum::router::OpenApiRouter;

use super::declare;
use super::served::Served;
use crate::agent::{Access, AgentApi, ElasticView, LogQuery, VmView, WatchQuery};
use crate::answer::Plain;
use crate::events;
use crate::extract::{InPath, InQuery};
use crate::name::VmName;
use crate::problem::Problem;
use crate::serve::Closing;

pub(super) fn routes<T: AgentApi>() -> OpenApiRouter {
    declare!(OpenApiRouter::default(), T: vm_list, vm_show, vm_elastic_show, vm_log, vm_watch)
}

/// All virtual machines, by name.
#[utoipa::path(
    get, path = "/v1/vms", tag = "vms", operation_id = "vm_list",
    responses(
        (status = 200, body = Vec<VmView>),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn vm_list<T: AgentApi>(Served(agent): Served<T>) -> Result<Json<Vec<VmView>>, Problem> {
    agent.vm_list().await.map(Json)
}

/// One virtual machine.
#[utoipa::path(
    get, path = "/v1/vms/{name}", tag = "vms", operation_id = "vm_show",
    params(("name" = VmName, Path, description = "The machine.")),
    responses(
        (status = 200, body = VmView),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn vm_show<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(name): InPath<VmName>,
) -> Result<Json<VmView>, Problem> {
    agent.vm_show(name).await.map(Json)
}

/// How a machine follows its guest's need, and what was decided; `null` when it does not.
#[utoipa::path(
    get, path = "/v1/vms/{name}/elastic", tag = "vms", operation_id = "vm_elastic_show",
    params(("name" = VmName, Path, description = "The machine.")),
    responses(
        (status = 200, body = Option<ElasticView>),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn vm_elastic_show<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(name): InPath<VmName>,
) -> Result<Json<Option<ElasticView>>, Problem> {
    agent.vm_elastic_show(name).await.map(Json)
}

/// The end of a machine's log.
#[utoipa::path(
    get, path = "/v1/vms/{name}/log", tag = "vms", operation_id = "vm_log",
    params(("name" = VmName, Path, description = "The machine."), LogQuery),
    responses(
        (status = 200, description = "The log, as it was written.", content_type = "text/plain", body = String),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn vm_log<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(name): InPath<VmName>,
    InQuery(query): InQuery<LogQuery>,
) -> Result<impl IntoResponse, Problem> {
    query.check()?;
    agent.vm_log(name, query).await.map(Plain)
}

/// Each access to one page of the guest, as server-sent events: `data` is an access, or a problem with which it ends.
#[utoipa::path(
    get, path = "/v1/vms/{name}/watch", tag = "vms", operation_id = "vm_watch",
    params(("name" = VmName, Path, description = "The machine."), WatchQuery),
    responses(
        (status = 200, description = "Server-sent events.", content_type = "text/event-stream", body = Access),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn vm_watch<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(name): InPath<VmName>,
    InQuery(query): InQuery<WatchQuery>,
    closing: Closing,
) -> Result<impl IntoResponse, Problem> {
    let accesses = agent.vm_watch(name, query).await?;
    Ok(events::sse_of_results(accesses, closing))
}
