//! `/v1/reservations` and `/v1/why`: reservation (S10).

use axum::Json;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;

use super::{Served, by, declare};
use crate::answer::{Accepted, ChangeAnswers};
use crate::change::ChangeHeaders;
use crate::controller::{
    ControllerApi, PlanView, ReasonView, ReservationNew, ReservationResize, ReservationView, Who,
};
use crate::extract::{Changing, InPath, Nothing};
use crate::problem::Problem;

pub(super) fn routes<T: ControllerApi>() -> OpenApiRouter {
    let router =
        declare!(OpenApiRouter::default(), T: reservation_list, reservation_show, reservation_create);
    declare!(router, T: reservation_apply, reservation_resize, reservation_release, why_show)
}

/// The reservations that one may see, by number.
#[utoipa::path(
    get, path = "/v1/reservations", tag = "reservations", operation_id = "reservation_list",
    responses(
        (status = 200, body = Vec<ReservationView>),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn reservation_list<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
) -> Result<Json<Vec<ReservationView>>, Problem> {
    who.user()?;
    controller.reservation_list(who).await.map(Json)
}

/// One reservation.
#[utoipa::path(
    get, path = "/v1/reservations/{id}", tag = "reservations", operation_id = "reservation_show",
    params(("id" = u64, Path, description = "The reservation.")),
    responses(
        (status = 200, body = ReservationView),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn reservation_show<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(id): InPath<u64>,
) -> Result<Json<ReservationView>, Problem> {
    who.user()?;
    controller.reservation_show(who, id).await.map(Json)
}

/// Reserves, and carries it out unless told otherwise. With `preview` the plan is answered and nothing is done.
#[utoipa::path(
    post, path = "/v1/reservations", tag = "reservations", operation_id = "reservation_create",
    params(ChangeHeaders), request_body = ReservationNew,
    responses((status = 200, body = PlanView, description = "The plan, of a preview."), ChangeAnswers),
)]
async fn reservation_create<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    Changing { change, body }: Changing<ReservationNew>,
) -> Result<Response, Problem> {
    who.user()?;
    body.check()?;
    if body.preview {
        return controller.reservation_preview(who, body).await.map(|plan| Json(plan).into_response());
    }
    let operation = controller.reservation_create(by(change, &who), who, body).await?;
    Ok(Accepted(operation).into_response())
}

/// Carries out a reservation.
#[utoipa::path(
    post, path = "/v1/reservations/{id}/apply", tag = "reservations", operation_id = "reservation_apply",
    params(("id" = u64, Path, description = "The reservation."), ChangeHeaders), responses(ChangeAnswers),
)]
async fn reservation_apply<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(id): InPath<u64>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    who.user()?;
    controller.reservation_apply(by(change, &who), who, id).await.map(Accepted)
}

/// Gives a reservation more or less memory.
#[utoipa::path(
    post, path = "/v1/reservations/{id}/resize", tag = "reservations", operation_id = "reservation_resize",
    params(("id" = u64, Path, description = "The reservation."), ChangeHeaders), request_body = ReservationResize, responses(ChangeAnswers),
)]
async fn reservation_resize<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(id): InPath<u64>,
    Changing { change, body }: Changing<ReservationResize>,
) -> Result<Accepted, Problem> {
    who.user()?;
    controller.reservation_resize(by(change, &who), who, id, body).await.map(Accepted)
}

/// Ends a reservation.
#[utoipa::path(
    delete, path = "/v1/reservations/{id}", tag = "reservations", operation_id = "reservation_release",
    params(("id" = u64, Path, description = "The reservation."), ChangeHeaders), responses(ChangeAnswers),
)]
async fn reservation_release<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    InPath(id): InPath<u64>,
    Changing { change, body: Nothing {} }: Changing<Nothing>,
) -> Result<Accepted, Problem> {
    who.user()?;
    controller.reservation_release(by(change, &who), who, id).await.map(Accepted)
}

/// Brick by brick, what each means for a request. Changes nothing.
#[utoipa::path(
    post, path = "/v1/why", tag = "reservations", operation_id = "why_show",
    params(ChangeHeaders), request_body = ReservationNew,
    responses(
        (status = 200, body = Vec<ReasonView>),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn why_show<T: ControllerApi>(
    Served(controller): Served<T>,
    who: Who,
    Changing { body, .. }: Changing<ReservationNew>,
) -> Result<Json<Vec<ReasonView>>, Problem> {
    who.user()?;
    body.check()?;
    controller.why(who, body).await.map(Json)
}
