//! `/v1/controller`, `/v1/topology`, `/v1/openapi.json`, `/metrics`.

use axum::Json;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use utoipa_axum::router::OpenApiRouter;

use super::{Served, declare, openapi};
use crate::controller::{ControllerApi, ControllerView, Topology, Who};
use crate::problem::Problem;

pub(super) fn routes<T: ControllerApi>() -> OpenApiRouter {
    declare!(OpenApiRouter::default(), T: controller_show, topology_show, document_show, metrics_show)
}

/// The controller in numbers, and its reign.
#[utoipa::path(
    get, path = "/v1/controller", tag = "controller", operation_id = "controller_show",
    responses(
        (status = 200, body = ControllerView),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn controller_show<T: ControllerApi>(
    Served(controller): Served<T>,
) -> Result<Json<ControllerView>, Problem> {
    controller.controller().await.map(Json)
}

/// The graph: racks, trays, bricks, switches, cables and circuits.
#[utoipa::path(
    get, path = "/v1/topology", tag = "controller", operation_id = "topology_show",
    responses(
        (status = 200, body = Topology),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn topology_show<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
) -> Result<Json<Topology>, Problem> {
    who.user()?;
    controller.topology(who).await.map(Json)
}

/// This document.
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "controller", operation_id = "openapi_show",
    responses((status = 200, description = "The OpenAPI document.", content_type = "application/json", body = Object)),
)]
async fn document_show<T: ControllerApi>(_: Served<T>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], openapi())
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "controller", operation_id = "metrics_show",
    responses(
        (status = 200, description = "Metrics.", content_type = "application/openmetrics-text", body = String),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
pub(super) async fn metrics_show<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
) -> Result<impl IntoResponse, Problem> {
    who.admin()?;
    let text = controller.metrics().await?;
    Ok(([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}
