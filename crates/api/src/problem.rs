//! Problem documents (RFC 9457): how every refusal and failure is told.

use std::fmt;

use axum::response::{IntoResponse, Response};
use axum::{Json, http};
use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// Media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What is wrong, in a form for programs ([`ProblemType`]) and in one for people (`detail`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// What kind of problem it is, as a relative URI; programs may rely on it.
    #[serde(rename = "type")]
    pub kind: ProblemType,
    /// The kind in a few words.
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What is wrong with this request and what to do, as a sentence.
    pub detail: String,
    /// The generation that is in force, where the request's was older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub generation: Option<u64>,
    /// Seconds after which to try again, where that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub retry_after_s: Option<u32>,
}

macro_rules! problem_types {
    ($($(#[$doc:meta])* $name:ident: $status:literal $uri:literal $title:literal;)*) => {
        /// Kinds of problems; each has one HTTP status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ProblemType {
            $($(#[$doc])* #[serde(rename = $uri)] $name,)*
        }

        impl ProblemType {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The HTTP status of the kind.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// The kind as a relative URI.
            pub const fn uri(self) -> &'static str {
                match self { $(Self::$name => $uri,)* }
            }

            /// The kind in a few words.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

problem_types! {
    /// The request cannot be read.
    Malformed: 400 "/problems/malformed" "The request cannot be read";
    /// Nobody knows who asks.
    Unauthenticated: 401 "/problems/unauthenticated" "Who asks is not known";
    /// Who asks may not do this.
    Forbidden: 403 "/problems/forbidden" "This is not allowed";
    /// There is no such thing.
    NotFound: 404 "/problems/not-found" "There is no such thing";
    /// The thing does not take this method.
    MethodNotAllowed: 405 "/problems/method-not-allowed" "The method does not apply";
    /// The name or the place is taken.
    Exists: 409 "/problems/exists" "It exists already";
    /// It cannot be done in the present state.
    WrongState: 409 "/problems/wrong-state" "Not possible in this state";
    /// Something still uses it.
    InUse: 409 "/problems/in-use" "It is in use";
    /// Another operation is changing it.
    Busy: 409 "/problems/busy" "It is being changed";
    /// There is not that much memory, or not that many of something.
    Capacity: 409 "/problems/capacity" "There is not enough";
    /// It was cancelled.
    Cancelled: 409 "/problems/cancelled" "It was cancelled";
    /// The generation is older than one that was seen.
    StaleGeneration: 412 "/problems/stale-generation" "The generation is too old";
    /// The body is too large.
    TooLarge: 413 "/problems/too-large" "The request is too large";
    /// The body is not JSON.
    MediaType: 415 "/problems/media-type" "The body is not JSON";
    /// What is asked for makes no sense.
    Invalid: 422 "/problems/invalid" "What is asked for is not possible";
    /// The same idempotency key came with another request.
    KeyReused: 422 "/problems/key-reused" "The idempotency key belongs to another request";
    /// A changing request without a generation.
    GenerationRequired: 428 "/problems/generation-required" "A generation is required";
    /// Too much at one time.
    Overloaded: 429 "/problems/overloaded" "Too much at one time";
    /// It failed inside.
    Internal: 500 "/problems/internal" "It failed";
    /// This agent cannot do that at all.
    Unsupported: 501 "/problems/unsupported" "Not possible here";
    /// Something below (QEMU, libvirt, a memory server, the guest) failed.
    Backend: 502 "/problems/backend" "Something below failed";
    /// Not now.
    Unavailable: 503 "/problems/unavailable" "Not available now";
    /// Something below did not answer in time.
    Timeout: 504 "/problems/timeout" "It took too long";
}

// By hand, because the derived one does not see names that a macro gives.
impl PartialSchema for ProblemType {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("The kind of a problem, as a relative URI."))
            .enum_values(Some(Self::ALL.iter().map(|kind| kind.uri())))
            .into()
    }
}

impl ToSchema for ProblemType {}

impl Problem {
    /// A problem of the kind with a sentence that says what is wrong and what to do.
    pub fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        Self {
            kind,
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            generation: None,
            retry_after_s: None,
        }
    }

    /// There is no `what` of that name.
    pub fn not_found(what: &str, name: impl fmt::Display) -> Self {
        Self::new(ProblemType::NotFound, format!("there is no {what} '{name}'"))
    }

    /// The same problem, to be tried again after some seconds.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status =
            http::StatusCode::from_u16(self.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after_s;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(MEDIA_TYPE));
        if let Some(seconds) = retry_after {
            headers.insert(http::header::RETRY_AFTER, seconds.into());
        }
        if status == http::StatusCode::UNAUTHORIZED {
            headers.insert(http::header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn kinds_are_told_apart_by_their_uris() {
        let uris: HashSet<_> = ProblemType::ALL.iter().map(|kind| kind.uri()).collect();
        assert_eq!(uris.len(), ProblemType::ALL.len());
        for kind in ProblemType::ALL {
            assert!((400..600).contains(&kind.status()));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.uri());
        }
    }

    #[test]
    fn a_problem_is_a_problem_document() {
        let problem = Problem::new(ProblemType::Overloaded, "try later").retry_after(3);
        let response = problem.into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["content-type"], MEDIA_TYPE);
        assert_eq!(response.headers()["retry-after"], "3");
    }
}
