//! Serving an API: TCP, TLS 1.3 with certificates on both sides, Unix sockets; every request is judged before it is read.

mod closing;
mod connection;
mod listen;
mod places;
pub(crate) mod tls;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub use closing::Closing;
pub use listen::Listen;
pub use tls::TlsFiles;

use crate::auth::Guard;
use crate::error::ApiError;
use listen::Listener;
use places::Places;

/// Connections at one time, of all places together. Each event stream and console holds one.
const CONNECTIONS_MAX: usize = 4096;

/// Time for a TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// Time for the head of a request.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// Time for running requests to end after a shutdown was asked for; event streams end at once.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Seconds after which whoever restarts a program that has failed may have done so.
const FAILED_RETRY_S: u32 = 5;

/// Pause after the kernel refused a connection (no descriptors): a busy loop would help nobody.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How an API is served.
#[derive(Clone, Debug, Default)]
pub struct ServeConfig {
    /// Where to listen; at least one place.
    pub listen: Vec<Listen>,
    /// TLS on all TCP places.
    pub tls: Option<TlsFiles>,
    /// Who is let in.
    pub guard: Guard,
    /// Whether to listen on the network with neither TLS nor token.
    pub insecure: bool,
}

/// An API's open places.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    context: Arc<Context>,
}

/// What all connections share.
pub(crate) struct Context {
    tls: Option<TlsAcceptor>,
    guard: Guard,
    places: Arc<Places>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("guard", &self.guard).finish_non_exhaustive()
    }
}

impl Server {
    /// Opens every place. Nothing is answered before [`Server::run`]. Needs a tokio runtime.
    pub fn open(config: &ServeConfig) -> Result<Self, ApiError> {
        if config.listen.is_empty() {
            return Err(ApiError::NoListener);
        }
        let tls = config.tls.as_ref().map(tls::server).transpose()?.map(TlsAcceptor::from);
        let guarded = config.insecure || tls.is_some() || config.guard.token.is_some();
        let opened: Result<Vec<_>, _> =
            config.listen.iter().map(|place| listen::open(place, guarded)).collect();
        let listeners = opened?.into_iter().flatten().collect();
        let places = Arc::new(Places::new(CONNECTIONS_MAX));
        Ok(Self { listeners, context: Arc::new(Context { tls, guard: config.guard.clone(), places }) })
    }

    /// Where it listens, with the ports that the kernel chose.
    pub fn places(&self) -> Vec<Listen> {
        self.listeners.iter().map(Listener::place).collect()
    }

    /// Answers until `closing` closes, then lets running requests end.
    pub async fn run(self, router: Router, closing: Closing) {
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            let (context, router, closing) = (Arc::clone(&self.context), router.clone(), closing.clone());
            accepting.spawn(accept(listener, context, router, closing));
        }
        while accepting.join_next().await.is_some() {}
    }
}

async fn accept(listener: Listener, context: Arc<Context>, router: Router, closing: Closing) {
    let mut connections = JoinSet::new();
    let closed = closing.clone().wait();
    tokio::pin!(closed);
    loop {
        while connections.try_join_next().is_some() {}
        let Some(free) = context.places.free().await else { break };
        let accepted = tokio::select! {
            () = &mut closed => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = context.places.take(free, &peer) else { continue };
                let (context, router, closing) = (Arc::clone(&context), router.clone(), closing.clone());
                connections.spawn(async move {
                    connection::serve(stream, peer, &context, router, closing).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("a connection to {} was not accepted: {error}", listener.place());
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Its socket goes first, so that nobody new waits for an answer.
    drop(listener);
    let drained = tokio::time::timeout(DRAIN_MAX, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!("{} requests were cut after {DRAIN_MAX:?}", connections.len());
        connections.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpSocket, TcpStream};

    /// Asks for nothing, so that an answer shows that the connection has its place.
    async fn ask(from: [u8; 4], place: &str) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let mut stream = socket.connect(place.parse().unwrap()).await.unwrap();
        let mut status = [0; 12];
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.ok()?;
        stream.read_exact(&mut status).await.ok()?;
        assert_eq!(&status, b"HTTP/1.1 404");
        Some(stream)
    }

    #[tokio::test]
    async fn many_connections_of_one_address_keep_no_other_out() {
        let config = ServeConfig { listen: vec!["127.0.0.1:0".parse().unwrap()], ..ServeConfig::default() };
        let mut server = Server::open(&config).unwrap();
        let context = Context { tls: None, guard: Guard::default(), places: Arc::new(Places::new(40)) };
        server.context = Arc::new(context);
        let place = server.places().remove(0).to_string();
        tokio::spawn(server.run(Router::new(), Closing::default()));
        let mut open = Vec::new();
        for _ in 0..60 {
            open.extend(ask([127, 0, 0, 1], &place).await);
        }
        assert_eq!(open.len(), 10);
        ask([127, 0, 0, 2], &place).await.expect("another address is let in");
        drop(open);
        // It takes a moment until the server has seen that they are closed.
        while ask([127, 0, 0, 1], &place).await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
