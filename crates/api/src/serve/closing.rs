//! The word that the server is about to end, for whatever would otherwise go on for ever.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio_util::sync::CancellationToken;

/// Tells that the server ends. All clones close together.
#[derive(Clone, Debug, Default)]
pub struct Closing(CancellationToken);

impl Closing {
    /// Says so.
    pub fn close(&self) {
        self.0.cancel();
    }

    /// Waits until somebody says so.
    pub fn wait(self) -> impl Future<Output = ()> + Send + 'static {
        self.0.cancelled_owned()
    }
}

impl<S: Sync> FromRequestParts<S> for Closing {
    type Rejection = Infallible;

    /// The server's; one that never closes where a router is called without a server.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}
