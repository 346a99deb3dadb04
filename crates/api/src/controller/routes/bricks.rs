//! `/v1/bricks` and `/v1/racks`: registration (S9).

use axum::Json;
use utoipa_axum::router::OpenApiRouter;

use super::{Served, by, declare};
use crate::answer::{Accepted, ChangeAnswers};
use crate::change::ChangeHeaders;
use crate::controller::{BrickNew, BrickView, ControllerApi, DrainRequest, RackFile, Who};
use crate::extract::{Changing, InPath, Nothing};
use crate::problem::Problem;

pub(super) fn routes<T: ControllerApi>() -> OpenApiRouter {
    let router = declare!(OpenApiRouter::default(), T: brick_list, brick_show, brick_register, brick_remove);
    declare!(router, T: brick_drain, rack_register)
}

/// All bricks, in the order of their registration.
#[utoipa::path(
    get, path = "/v1/bricks", tag = "bricks", operation_id = "brick_list",
    responses(
        (status = 200, body = Vec<BrickView>),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn brick_list<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
) -> Result<Json<Vec<BrickView>>, Problem> {
    who.user()?;
    controller.brick_list().await.map(Json)
}

/// One brick.
#[utoipa::path(
    get, path = "/v1/bricks/{name}", tag = "bricks", operation_id = "brick_show",
    params(("name" = String, Path, description = "The brick.")),
    responses(
        (status = 200, body = BrickView),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn brick_show<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<String>,
) -> Result<Json<BrickView>, Problem> {
    who.acquaintance()?;
    controller.brick_show(name).await.map(Json)
}

/// Registers a brick and its cables.
#[utoipa::path(
    post, path = "/v1/bricks", tag = "bricks", operation_id = "brick_register",
    params(ChangeHeaders), request_body = BrickNew, responses(ChangeAnswers),
)]
async fn brick_register<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    Changing { change, body }: Changing<BrickNew>,
) -> Result<Accepted, Problem> {
    who.registrar()?;
    controller.brick_register(by(change, &who), body).await.map(Accepted)
}

/// Registers all that is in a rack file, or nothing.
#[utoipa::path(
    post, path = "/v1/racks", tag = "bricks", operation_id = "rack_register",
    params(ChangeHeaders), request_body = RackFile, responses(ChangeAnswers),
)]
async fn rack_register<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    Changing { change, body }: Changing<RackFile>,
) -> Result<Accepted, Problem> {
    who.admin()?;
    controller.rack_register(by(change, &who), body).await.map(Accepted)
}

/// Moves away what lies on a brick; it takes nothing new any more. Or lets it take new things again.
#[utoipa::path(
    post, path = "/v1/bricks/{name}/drain", tag = "bricks", operation_id = "brick_drain",
    params(("name" = String, Path, description = "The brick."), ChangeHeaders), request_body = DrainRequest, responses(ChangeAnswers),
)]
async fn brick_drain<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<String>,
    Changing { change, body }: Changing<DrainRequest>,
) -> Result<Accepted, Problem> {
    who.admin()?;
    controller.brick_drain(by(change, &who), name, body).await.map(Accepted)
}

/// Removes a brick of which nothing is held.
#[utoipa::path(
    delete, path = "/v1/bricks/{name}", tag = "bricks", operation_id = "brick_remove",
    params(("name" = String, Path, description = "The brick."), ChangeHeaders), responses(ChangeAnswers),
)]
async fn brick_remove<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(name): InPath<String>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    who.admin()?;
    controller.brick_remove(by(change, &who), name).await.map(Accepted)
}
