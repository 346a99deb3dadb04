//! How success is answered.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa::IntoResponses;

use crate::operation::Operation;
use crate::problem::Problem;

/// An operation that was accepted: `202`, with the place where it can be watched.
#[derive(Debug)]
pub struct Accepted(pub Operation);

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let place = format!("/v1/operations/{}", self.0.id);
        let mut response = (StatusCode::ACCEPTED, Json(self.0)).into_response();
        if let Ok(place) = HeaderValue::from_str(&place) {
            response.headers_mut().insert(header::LOCATION, place);
        }
        response
    }
}

/// Text for people, as it was written.
#[derive(Debug)]
pub(crate) struct Plain(pub(crate) Vec<u8>);

impl IntoResponse for Plain {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], self.0).into_response()
    }
}

/// What a changing request may be answered with, for the OpenAPI document.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "only its description is used")]
pub(crate) enum ChangeAnswers {
    /// Accepted: the operation that does it.
    #[response(status = 202, headers(("location" = String, description = "Where the operation can be watched.")))]
    Accepted(Operation),
    /// The request cannot be read.
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(Problem),
    /// Who asks is not known.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(Problem),
    /// Who asks may not do this.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// There is no such thing.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// It cannot be done now: it exists, is in use, is being changed, is in the wrong state, or there is not enough.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// The generation is too old.
    #[response(status = 412, content_type = "application/problem+json")]
    StaleGeneration(Problem),
    /// The body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// The body is not JSON.
    #[response(status = 415, content_type = "application/problem+json")]
    MediaType(Problem),
    /// What is asked for makes no sense.
    #[response(status = 422, content_type = "application/problem+json")]
    Invalid(Problem),
    /// The generation is missing.
    #[response(status = 428, content_type = "application/problem+json")]
    GenerationRequired(Problem),
    /// Not now: too much waits, or nothing can be kept.
    #[response(
        status = 503,
        content_type = "application/problem+json",
        headers(("retry-after" = u32, description = "Seconds after which to try again.")),
    )]
    Unavailable(Problem),
    /// Any other problem; `type` and `detail` tell.
    #[response(status = "default", content_type = "application/problem+json")]
    Other(Problem),
}
