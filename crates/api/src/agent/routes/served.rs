//! The agent that a request is for.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::agent::AgentApi;
use crate::problem::{Problem, ProblemType};

/// The agent that a request is for. It comes with the request and is no state of the router, so that one router serves
/// thousands of simulated agents.
pub(super) struct Served<T>(pub(super) Arc<T>);

impl<T> Clone for Served<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: AgentApi, S: Sync> FromRequestParts<S> for Served<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let served = parts.extensions.get::<Self>().cloned();
        served.ok_or_else(|| Problem::new(ProblemType::Internal, "the router was given no agent"))
    }
}
