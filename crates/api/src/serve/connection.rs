//! One connection: TLS where it is asked for, then requests one after the other, each judged first. What changes something ends
//! although its connection breaks. Who is not known has one answer, and no connection to hold.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, HeaderValue};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt;

use super::closing::Closing;
use super::listen::Stream;
use super::{Context, FAILED_RETRY_S, HANDSHAKE_MAX, HEAD_MAX};
use crate::auth::{self, Peer};
use crate::problem::{Problem, ProblemType};

/// Serves a connection to its end.
pub(super) async fn serve(
    stream: Stream,
    peer: Peer,
    context: &Arc<Context>,
    router: Router,
    closing: Closing,
) {
    match (stream, &context.tls) {
        (Stream::Unix(stream), _) => requests(stream, peer, context, router, closing).await,
        (Stream::Tcp(stream), None) => requests(stream, peer, context, router, closing).await,
        (Stream::Tcp(stream), Some(tls)) => {
            match tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                    // The handshake does not succeed without one.
                    let name = shown.map(auth::certificate_name).unwrap_or_default();
                    requests(stream, Peer::Certificate(name), context, router, closing).await;
                }
                Ok(Err(error)) => tracing::debug!("{peer:?} did not get through the TLS handshake: {error}"),
                Err(_) => tracing::debug!("{peer:?} did not finish the TLS handshake in {HANDSHAKE_MAX:?}"),
            }
        }
    }
}

async fn requests<S>(stream: S, peer: Peer, context: &Arc<Context>, router: Router, closing: Closing)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (asked_of, signal, from) = (Arc::clone(context), closing.clone(), peer.clone());
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let answered = answer(request, from.clone(), Arc::clone(&asked_of), router.clone(), signal.clone());
        async { answered.await.map(closed_to_strangers) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("the connection of {peer:?} broke: {error}");
    }
}

/// An answer to somebody unknown is the connection's last: its place is for those who may ask.
fn closed_to_strangers(mut response: Response) -> Response {
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer(
    request: hyper::Request<Incoming>,
    peer: Peer,
    context: Arc<Context>,
    router: Router,
    closing: Closing,
) -> Result<Response, std::convert::Infallible> {
    let identity = match context.guard.judge(&peer, request.headers()) {
        Ok(identity) => identity,
        Err(problem) => return Ok(problem.into_response()),
    };
    let mut request: Request = request.map(Body::new);
    request.extensions_mut().insert(identity);
    request.extensions_mut().insert(closing.clone());
    tokio::select! {
        // First: what is ready at the same moment may tell of something that was never kept.
        biased;
        () = closing.failed() => Ok(unavailable()),
        answered = ask(request, router) => answered,
    }
}

fn unavailable() -> Response {
    let detail = "what is asked for cannot be kept any more, and this program ends: its log says why; ask again when it was started anew";
    Problem::new(ProblemType::Unavailable, detail).retry_after(FAILED_RETRY_S).into_response()
}

async fn ask(request: Request, router: Router) -> Result<Response, std::convert::Infallible> {
    if request.method().is_safe() {
        return router.oneshot(request).await;
    }
    // A change is judged, recorded and begun as one, though whoever asked may hang up in the middle: hyper drops what it awaits
    // here then, and a change that was recorded and not begun would keep its target busy for ever.
    let changed = tokio::spawn(router.oneshot(request)).await;
    changed.unwrap_or_else(|error| {
        tracing::error!("a change broke off: {error}");
        let detail = "it broke off within this program, and may have been accepted: look at the operations";
        Ok(Problem::new(ProblemType::Internal, detail).into_response())
    })
}
