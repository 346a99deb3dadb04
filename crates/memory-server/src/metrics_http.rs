//! Prometheus metrics over plain HTTP: one request for each connection, `GET /metrics`, nothing else.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use rustix::event::{PollFd, PollFlags, poll};

use crate::error::ServerError;
use crate::metrics::registry;
use crate::session::Store;
use crate::shutdown::Shutdown;

/// A scraper's request; anything longer is none.
const REQUEST_BYTES_MAX: usize = 4096;

/// A scraper that is slower blocks the others, of which there are one or two.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Opens the place where metrics are fetched.
pub(crate) fn open(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let failed = |reason| ServerError::Listen { place: format!("{address} (metrics)"), reason };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Answers scrapers until shutdown.
pub(crate) fn serve(listener: &TcpListener, store: &Arc<Store>, shutdown: &Shutdown) {
    let registry = registry(store);
    while !shutdown.is_triggered() {
        let mut waiting = [PollFd::new(listener, PollFlags::IN), PollFd::new(shutdown, PollFlags::IN)];
        // An interrupted wait is as good as one that ended.
        let _ = poll(&mut waiting, None);
        while let Ok((stream, from)) = listener.accept() {
            let page = || {
                let mut text = String::new();
                encode(&mut text, &registry).map_err(io::Error::other).map(|()| text)
            };
            if let Err(error) = answer(stream, page) {
                tracing::debug!(%from, %error, "a scraper of the metrics was not answered");
            }
        }
    }
}

fn answer(mut stream: TcpStream, page: impl Fn() -> io::Result<String>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut request = [0; REQUEST_BYTES_MAX];
    let mut len = 0;
    while !request[..len].windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        match stream.read(&mut request[len..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => len += count,
        }
    }
    let (status, body) = if request.starts_with(b"GET /metrics ") {
        ("200 OK", page()?)
    } else {
        ("404 Not Found", "Metrics are at /metrics.\n".to_owned())
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let len = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    )
}
