//! Reading requests: every mistake in one is told as a problem document.

use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::auth::Identity;
use crate::change::Change;
use crate::generation::Generation;
use crate::idempotency::{self, IdempotencyKey};
use crate::json;
use crate::problem::{Problem, ProblemType};

/// Largest body of a request: a machine with hundreds of attachments fits many times.
pub const BODY_BYTES_MAX: usize = 256 << 10;

/// Time for a body to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Values in the path.
#[derive(Clone, Copy, Debug)]
pub struct InPath<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        read.map(|axum::extract::Path(value)| Self(value)).map_err(|error| {
            // A name that cannot be one names nothing.
            let detail = format!("there is no {}: {}", parts.uri.path(), misnamed(&error));
            Problem::new(ProblemType::NotFound, detail)
        })
    }
}

/// Why what stands in the path names nothing.
fn misnamed(error: &PathRejection) -> String {
    let PathRejection::FailedToDeserializePathParams(failed) = error else {
        return sentence(&error.body_text());
    };
    match failed.kind() {
        // The only values there that are read by their own parser are numbers.
        ErrorKind::ParseError { value, .. }
        | ErrorKind::ParseErrorAtKey { value, .. }
        | ErrorKind::ParseErrorAtIndex { value, .. } => format!("'{value}' is no number"),
        ErrorKind::DeserializeError { message, .. } => message.clone(),
        other => sentence(&other.to_string()),
    }
}

/// Values behind the question mark.
#[derive(Clone, Copy, Debug)]
pub struct InQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for InQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::from_request_parts(parts, state).await;
        read.map(|axum::extract::Query(value)| Self(value))
            .map_err(|error| Problem::new(ProblemType::Malformed, sentence(&error.body_text())))
    }
}

/// A request that changes something: what its headers say, and its JSON body. An empty body reads as `{}`.
#[derive(Debug)]
pub struct Changing<T> {
    /// Under whose reign, with which key and by whom.
    pub change: Change,
    /// The body.
    pub body: T,
}

/// The body of requests that have none.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Changing<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let generation = Generation::from_request_parts(&mut parts, state).await?;
        let body = tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, BODY_BYTES_MAX)).await;
        let body =
            body.map_err(|_| Problem::new(ProblemType::Malformed, "the body did not arrive in time"))?;
        let body = body.map_err(|error| {
            use std::error::Error;
            let too_large =
                error.source().is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>());
            if too_large {
                let detail = format!("the body is longer than {BODY_BYTES_MAX} bytes");
                Problem::new(ProblemType::TooLarge, detail)
            } else {
                Problem::new(ProblemType::Malformed, format!("the body broke off: {error}"))
            }
        })?;
        let change = Change { generation, key: key(&parts, &body)?, by: Identity::of(&parts).to_string() };
        Ok(Self { change, body: read(&parts.headers, &body)? })
    }
}

fn key(parts: &Parts, body: &Bytes) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = parts.headers.get(idempotency::HEADER) else { return Ok(None) };
    // A value that is no text is no key either, and is refused as an empty one.
    let text = value.to_str().unwrap_or_default();
    IdempotencyKey::of(text, parts.method.as_str(), parts.uri.path(), body).map(Some)
}

fn read<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes) -> Result<T, Problem> {
    if !body.is_empty() && !is_json(headers) {
        return Err(Problem::new(
            ProblemType::MediaType,
            "the body has to be JSON and to say so: send the header 'Content-Type: application/json'",
        ));
    }
    json::read(if body.is_empty() { b"{}" } else { &body[..] })
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// The framework's words, without the capital that begins a sentence.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::VmSpec;
    use axum::body::Body;

    async fn read(content_type: &str, body: impl Into<Body>) -> Result<Changing<VmSpec>, Problem> {
        let request = Request::builder()
            .method("POST")
            .uri("/v1/vms")
            .header("rackmem-generation", "3")
            .header("content-type", content_type)
            .body(body.into());
        Changing::from_request(request.unwrap(), &()).await
    }

    #[tokio::test]
    async fn a_mistake_is_named_with_its_place() {
        let json = "application/json; charset=utf-8";
        for (body, kind, words) in [
            ("{", ProblemType::Malformed, "line 1"),
            ("{\"name\":\"A\"}", ProblemType::Invalid, "'name'"),
            ("{\"boot\":{\"kernel\":1}}", ProblemType::Invalid, "'boot.kernel'"),
            ("{\"colour\":1}", ProblemType::Invalid, "colour"),
            ("", ProblemType::Invalid, "missing field"),
            ("[\"web1\",1]", ProblemType::Invalid, "expected an object"),
        ] {
            let problem = read(json, body).await.unwrap_err();
            assert_eq!(problem.kind, kind, "{body}: {problem}");
            assert!(problem.detail.contains(words), "{body}: {problem}");
        }
        assert_eq!(read("text/plain", "{}").await.unwrap_err().kind, ProblemType::MediaType);
        let long = "x".repeat(BODY_BYTES_MAX + 1);
        assert_eq!(read(json, long).await.unwrap_err().kind, ProblemType::TooLarge);
    }

    /// What is answered to a path whose value is read as a `T`.
    async fn misnamed<T: DeserializeOwned + Send + 'static>(route: &str, path: &str) -> String {
        use tower::Service;
        let handler = async |InPath(_): InPath<T>| ();
        let mut router = axum::Router::new().route(route, axum::routing::get(handler));
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = router.call(request).await.unwrap();
        let body = to_bytes(response.into_body(), BODY_BYTES_MAX).await.unwrap();
        serde_json::from_slice::<Problem>(&body).unwrap().detail
    }

    #[tokio::test]
    async fn a_value_in_the_path_that_names_nothing_is_told_with_the_reason() {
        let number = misnamed::<u64>("/v1/reservations/{id}", "/v1/reservations/abc").await;
        assert_eq!(number, "there is no /v1/reservations/abc: 'abc' is no number");
        let operation = misnamed::<crate::OperationId>("/v1/operations/{id}", "/v1/operations/abc").await;
        assert!(operation.starts_with("there is no /v1/operations/abc: 'abc' is not the id"), "{operation}");
        let machine = misnamed::<crate::VmName>("/v1/vms/{name}", "/v1/vms/Web").await;
        assert!(machine.starts_with("there is no /v1/vms/Web: 'Web' cannot be a name"), "{machine}");
    }

    #[tokio::test]
    async fn what_is_left_out_has_its_default() {
        let body = r#"{"name":"web1","memory":4096,"boot":{}}"#;
        let read = read("application/json", body).await.unwrap();
        assert_eq!((read.change.generation, read.change.by.as_str()), (Generation(3), "local"));
        assert_eq!((read.body.vcpus, read.body.start, read.body.memory_max), (1, true, None));
    }
}
