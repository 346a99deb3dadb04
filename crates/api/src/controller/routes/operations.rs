//! `/v1/operations` and `/v1/events`.

use axum::Json;
use axum::response::IntoResponse;
use futures_util::StreamExt;
use utoipa_axum::router::OpenApiRouter;

use super::{Served, by, declare};
use crate::answer::{Accepted, ChangeAnswers};
use crate::change::ChangeHeaders;
use crate::controller::{ControllerApi, ReasonView, TokenEnd, Who};
use crate::event::Event;
use crate::events::{self, LastEventId};
use crate::extract::{Changing, InPath, InQuery, Nothing};
use crate::operation::{Operation, OperationFilter, OperationId, WaitQuery};
use crate::problem::Problem;
use crate::serve::Closing;

pub(super) fn routes<T: ControllerApi>() -> OpenApiRouter {
    let router = declare!(OpenApiRouter::default(), T: operation_list, operation_show, operation_wait);
    declare!(router, T: operation_cancel, operation_why, event_stream)
}

/// Operations, newest first.
#[utoipa::path(
    get, path = "/v1/operations", tag = "operations", operation_id = "operation_list",
    params(OperationFilter),
    responses(
        (status = 200, body = Vec<Operation>),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn operation_list<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InQuery(filter): InQuery<OperationFilter>,
) -> Result<Json<Vec<Operation>>, Problem> {
    who.user()?;
    filter.check()?;
    controller.operation_list(who, filter).await.map(Json)
}

/// One operation.
#[utoipa::path(
    get, path = "/v1/operations/{id}", tag = "operations", operation_id = "operation_show",
    params(("id" = OperationId, Path, description = "The operation.")),
    responses(
        (status = 200, body = Operation),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn operation_show<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(id): InPath<OperationId>,
) -> Result<Json<Operation>, Problem> {
    who.user()?;
    controller.operation_show(who, id).await.map(Json)
}

/// The operation when it has ended, or as it is when the time is over.
#[utoipa::path(
    get, path = "/v1/operations/{id}/wait", tag = "operations", operation_id = "operation_wait",
    params(("id" = OperationId, Path, description = "The operation."), WaitQuery),
    responses(
        (status = 200, body = Operation),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn operation_wait<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(id): InPath<OperationId>,
    InQuery(query): InQuery<WaitQuery>,
    closing: Closing,
) -> Result<Json<Operation>, Problem> {
    query.check()?;
    tokio::select! {
        waited = controller.operation_wait(who.clone(), id, query) => waited.map(Json),
        () = closing.wait() => controller.operation_show(who, id).await.map(Json),
    }
}

/// Brick by brick, what each means now for the request of an operation.
#[utoipa::path(
    get, path = "/v1/operations/{id}/why", tag = "operations", operation_id = "operation_why",
    params(("id" = OperationId, Path, description = "The operation.")),
    responses(
        (status = 200, body = Vec<ReasonView>),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn operation_why<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(id): InPath<OperationId>,
) -> Result<Json<Vec<ReasonView>>, Problem> {
    who.user()?;
    controller.operation_why(who, id).await.map(Json)
}

/// Asks a running operation to stop and to undo what it did; one that has ended stays as it is.
#[utoipa::path(
    post, path = "/v1/operations/{id}/cancel", tag = "operations", operation_id = "operation_cancel",
    params(("id" = OperationId, Path, description = "The operation."), ChangeHeaders), responses(ChangeAnswers),
)]
async fn operation_cancel<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(id): InPath<OperationId>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    who.user()?;
    controller.operation_cancel(by(change, &who), who, id).await.map(Accepted)
}

/// What happens, as server-sent events, from now on or behind the event of `Last-Event-ID`.
#[utoipa::path(
    get, path = "/v1/events", tag = "operations", operation_id = "event_stream",
    params(("last-event-id" = Option<u64>, Header, nullable = false, description = "The last event that was read.")),
    responses(
        (status = 200, description = "Server-sent events.", content_type = "text/event-stream", body = Event),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn event_stream<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    LastEventId(after): LastEventId,
    end: TokenEnd,
    closing: Closing,
) -> Result<impl IntoResponse, Problem> {
    who.user()?;
    let stream = controller.events(who, after).await?;
    Ok(events::sse(stream.take_until(end.wait()), |event: &Event| Some(event.id), closing))
}
