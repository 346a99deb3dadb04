//! `/v1/operations` and `/v1/events`.

use axum::Json;
use axum::response::IntoResponse;
use utoipa_axum::router::OpenApiRouter;

use super::declare;
use super::served::Served;
use crate::agent::AgentApi;
use crate::answer::{Accepted, ChangeAnswers};
use crate::change::ChangeHeaders;
use crate::event::Event;
use crate::events::{self, LastEventId};
use crate::extract::{Changing, InPath, InQuery, Nothing};
use crate::operation::{Operation, OperationFilter, OperationId, WaitQuery};
use crate::problem::Problem;
use crate::serve::Closing;

pub(super) fn routes<T: AgentApi>() -> OpenApiRouter {
    let router = declare!(OpenApiRouter::default(), T: operation_list, operation_show, operation_wait);
    declare!(router, T: operation_cancel, event_stream)
}

/// Operations, newest first.
#[utoipa::path(
    get, path = "/v1/operations", tag = "operations", operation_id = "operation_list",
    params(OperationFilter),
    responses(
        (status = 200, body = Vec<Operation>),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "Not understood."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn operation_list<T: AgentApi>(
    Served(agent): Served<T>,
    InQuery(filter): InQuery<OperationFilter>,
) -> Result<Json<Vec<Operation>>, Problem> {
    filter.check()?;
    agent.operation_list(filter).await.map(Json)
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
async fn operation_show<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(id): InPath<OperationId>,
) -> Result<Json<Operation>, Problem> {
    agent.operation_show(id).await.map(Json)
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
async fn operation_wait<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(id): InPath<OperationId>,
    InQuery(query): InQuery<WaitQuery>,
    closing: Closing,
) -> Result<Json<Operation>, Problem> {
    query.check()?;
    tokio::select! {
        waited = agent.operation_wait(id, query) => waited.map(Json),
        () = closing.wait() => agent.operation_show(id).await.map(Json),
    }
}

/// Asks a running operation to stop and to undo what it did; one that has ended stays as it is.
#[utoipa::path(
    post, path = "/v1/operations/{id}/cancel", tag = "operations", operation_id = "operation_cancel",
    params(("id" = OperationId, Path, description = "The operation."), ChangeHeaders), responses(ChangeAnswers),
)]
async fn operation_cancel<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(id): InPath<OperationId>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    agent.operation_cancel(change, id).await.map(Accepted)
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
async fn event_stream<T: AgentApi>(
    Served(agent): Served<T>,
    LastEventId(after): LastEventId,
    closing: Closing,
) -> Result<impl IntoResponse, Problem> {
    let stream = agent.events(after).await?;
    Ok(events::sse(stream, |event: &Event| Some(event.id), closing))
}
