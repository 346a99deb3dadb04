//! `/v1/host`, `/v1/openapi.json`, `/metrics`.

use axum::Json;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use utoipa_axum::router::OpenApiRouter;

use super::served::Served;
use super::{declare, openapi};
use crate::agent::{AgentApi, HostView};
use crate::problem::Problem;

pub(super) fn routes<T: AgentApi>() -> OpenApiRouter {
    declare!(OpenApiRouter::default(), T: host_show, document_show, metrics_show)
}

/// The brick in numbers, and the generation in force.
#[utoipa::path(
    get, path = "/v1/host", tag = "host", operation_id = "host_show",
    responses(
        (status = 200, body = HostView),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn host_show<T: AgentApi>(Served(agent): Served<T>) -> Result<Json<HostView>, Problem> {
    agent.host().await.map(Json)
}

/// This document.
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "host", operation_id = "openapi_show",
    responses((status = 200, description = "The OpenAPI document.", content_type = "application/json", body = Object)),
)]
async fn document_show<T: AgentApi>(_: Served<T>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], openapi())
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "host", operation_id = "metrics_show",
    responses(
        (status = 200, description = "Metrics.", content_type = "application/openmetrics-text", body = String),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn metrics_show<T: AgentApi>(Served(agent): Served<T>) -> Result<impl IntoResponse, Problem> {
    let text = agent.metrics().await?;
    Ok(([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}
