//! The word that the server is about to end, for whatever would otherwise go on for ever.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio_util::sync::CancellationToken;

/// Tells that the server ends. All clones close together.
#[derive(Clone, Debug, Default)]
pub struct Closing {
    closed: CancellationToken,
    failed: CancellationToken,
    why: Arc<OnceLock<String>>,
}

impl Closing {
    /// Says so.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Says so because what is served cannot go on. From this call on every request, also one that waits for its answer, is told
    /// that it is unavailable; nobody is shown anything any more.
    pub fn fail(&self, why: impl Into<String>) {
        // Whatever fails after the first failure does so because of it.
        let _ = self.why.set(why.into());
        self.failed.cancel();
        self.closed.cancel();
    }

    /// Why what is served cannot go on, if it cannot.
    pub fn failure(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }

    /// Waits until somebody says that the server ends.
    pub fn wait(self) -> impl Future<Output = ()> + Send + 'static {
        self.closed.cancelled_owned()
    }

    /// Waits until what is served cannot go on.
    pub(super) fn failed(self) -> impl Future<Output = ()> + Send + 'static {
        self.failed.cancelled_owned()
    }
}

impl<S: Sync> FromRequestParts<S> for Closing {
    type Rejection = Infallible;

    /// The server's; one that never closes where a router is called without a server.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}
