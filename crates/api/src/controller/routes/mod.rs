//! The controller's API over HTTP: one router for any [`ControllerApi`], and the OpenAPI document that it is described by.

mod bricks;
mod guests;
mod machines;
mod operations;
mod reservations;
mod whole;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::{ControllerApi, Tokens};
use crate::agent::routes::declare;
use crate::change::Change;
use crate::problem::{Problem, ProblemType};
use crate::schema::Bearer;

use super::{TokenEnd, Who};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "rackmem controller",
        description = "The API of the SDM controller (interfaces S9 and S10 of D4.1): bricks, switches and cables of the \
                       racks, reservations of them, and virtual machines over them. Amounts of memory are whole numbers of bytes, times are \
                       milliseconds since 1970. Every change is an operation: it is kept, answered with 202, and goes on \
                       whatever becomes of the request. Asked with 'Authorization: Bearer TOKEN', where there are tokens.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "controller", description = "The whole in numbers and as a graph."),
        (name = "bricks", description = "Registration (S9)."),
        (name = "reservations", description = "Reservation (S10)."),
        (name = "vms", description = "Virtual machines over the racks."),
        (name = "operations", description = "Work that was accepted, and what happened."),
    ),
    components(schemas(Problem)),
    modifiers(&Bearer),
)]
struct Document;

/// The controller that requests are for.
struct Served<T>(Arc<T>);

impl<T> Clone for Served<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: ControllerApi, S: Sync> FromRequestParts<S> for Served<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let served = parts.extensions.get::<Self>().cloned();
        served.ok_or_else(|| Problem::new(ProblemType::Internal, "the router was given no controller"))
    }
}

fn declared<T: ControllerApi>() -> OpenApiRouter {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(whole::routes::<T>())
        .merge(bricks::routes::<T>())
        .merge(reservations::routes::<T>())
        .merge(machines::routes::<T>())
        .merge(guests::routes::<T>())
        .merge(operations::routes::<T>())
}

async fn nothing_here() -> Problem {
    Problem::new(ProblemType::NotFound, "there is nothing here: GET /v1/openapi.json tells what there is")
}

async fn other_method() -> Problem {
    let detail = "this does not take that method: GET /v1/openapi.json tells which it takes";
    Problem::new(ProblemType::MethodNotAllowed, detail)
}

/// The API of a controller. With tokens, everybody has to show one; without, whoever the server lets in may do everything.
pub fn router<T: ControllerApi>(controller: Arc<T>, tokens: Option<Tokens>) -> Router {
    let router = Router::from(declared::<T>())
        .fallback(nothing_here)
        .method_not_allowed_fallback(other_method)
        .layer(Extension(Served(controller)));
    match tokens {
        None => router,
        Some(tokens) => {
            let tokens = Arc::new(tokens);
            router.layer(middleware::from_fn(move |request, next| judged(Arc::clone(&tokens), request, next)))
        }
    }
}

/// `GET /metrics` alone, for scrapers that are let in without a token.
pub fn metrics_router<T: ControllerApi>(controller: Arc<T>) -> Router {
    Router::new()
        .route("/metrics", axum::routing::get(whole::metrics_show::<T>))
        .fallback(only_metrics)
        .layer(Extension(Served(controller)))
}

async fn only_metrics() -> Problem {
    Problem::new(ProblemType::NotFound, "metrics are at /metrics, and there is nothing else here")
}

async fn judged(tokens: Arc<Tokens>, mut request: Request, next: Next) -> Response {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    match tokens.judge(request.headers(), now_ms) {
        Ok(who) => {
            request.extensions_mut().insert(TokenEnd::new(tokens.expiry(&who), now_ms));
            request.extensions_mut().insert(who);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// The change, with the name that the record is to have.
fn by(change: Change, who: &Who) -> Change {
    Change { by: who.name.clone(), ..change }
}

/// The OpenAPI document, made from the routes.
pub fn document<T: ControllerApi>() -> utoipa::openapi::OpenApi {
    declared::<T>().into_openapi()
}

/// The OpenAPI document of the controller's API, as it is committed in `openapi/controller.json`.
pub fn openapi() -> &'static str {
    include_str!("../../../openapi/controller.json")
}
