//! `/v1/vms`: what the agents of the bricks say of the guests. They are asked, and what they answer is passed on.

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use utoipa_axum::router::OpenApiRouter;

use super::{Served, declare};
use crate::agent::{Access, ElasticView, LogQuery, WatchQuery};
use crate::answer::Plain;
use crate::console::{self, Upgrade};
use crate::controller::{ControllerApi, TokenEnd, Who};
use crate::events;
use crate::extract::{InPath, InQuery};
use crate::name::VmName;
use crate::problem::Problem;
use crate::serve::Closing;

pub(super) fn routes<T: ControllerApi>() -> OpenApiRouter {
    declare!(OpenApiRouter::default(), T: vm_elastic_show, vm_console, vm_log, vm_watch)
}

/// How a machine follows its guest's need, and what was decided; `null` when it does not.
#[utoipa::path(
    get, path = "/v1/vms/{name}/elastic", tag = "vms", operation_id = "vm_elastic_show",
    params(("name" = VmName, Path, description = "The machine.")),
    responses(
        (status = 200, body = Option<ElasticView>),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Its agent does not answer."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn vm_elastic_show<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<VmName>,
) -> Result<Json<Option<ElasticView>>, Problem> {
    who.user()?;
    controller.vm_elastic_show(who, name).await.map(Json)
}

/// The machine's serial console, as a WebSocket: binary messages in both directions.
#[utoipa::path(
    get, path = "/v1/vms/{name}/console", tag = "vms", operation_id = "vm_console",
    params(("name" = VmName, Path, description = "The machine.")),
    responses(
        (status = 101, description = "The WebSocket is open."),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No WebSocket."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Its agent does not answer."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn vm_console<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<VmName>,
    closing: Closing,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    who.user()?;
    console::answer(upgrade, closing, controller.vm_console(who, name)).await
}

/// The end of a machine's log.
#[utoipa::path(
    get, path = "/v1/vms/{name}/log", tag = "vms", operation_id = "vm_log",
    params(("name" = VmName, Path, description = "The machine."), LogQuery),
    responses(
        (status = 200, description = "The log, as it was written.", content_type = "text/plain", body = String),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Its agent does not answer."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn vm_log<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<VmName>,
    InQuery(query): InQuery<LogQuery>,
) -> Result<impl IntoResponse, Problem> {
    who.user()?;
    query.check()?;
    controller.vm_log(who, name, query).await.map(Plain)
}

/// Each access to one page of the guest, as server-sent events: `data` is an access, or a problem with which it ends.
#[utoipa::path(
    get, path = "/v1/vms/{name}/watch", tag = "vms", operation_id = "vm_watch",
    params(("name" = VmName, Path, description = "The machine."), WatchQuery),
    responses(
        (status = 200, description = "Server-sent events.", content_type = "text/event-stream", body = Access),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Its agent does not answer."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn vm_watch<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<VmName>,
    InQuery(query): InQuery<WatchQuery>,
    end: TokenEnd,
    closing: Closing,
) -> Result<impl IntoResponse, Problem> {
    who.user()?;
    let accesses = controller.vm_watch(who, name, query).await?;
    Ok(events::sse_of_results(accesses.take_until(end.wait()), closing))
}
