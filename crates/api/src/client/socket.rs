//! WebSockets as plain streams of bytes.

use std::sync::Arc;

use axum::http::{HeaderValue, Request, header};
use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::endpoint::Endpoint;
use super::{CONNECT_MAX, chain};
use crate::error::ApiError;

/// Bytes that wait on their way to or from the WebSocket.
const BUFFER_BYTES: usize = 64 << 10;

/// Opens a WebSocket.
pub(super) async fn open(
    endpoint: &Endpoint,
    tls: &Arc<ClientConfig>,
    path: &str,
    token: Option<&HeaderValue>,
) -> Result<DuplexStream, ApiError> {
    let opening = async {
        let request = request(endpoint, path, token)?;
        match endpoint {
            Endpoint::Unix { path } => {
                shake(endpoint, request, connected(endpoint, UnixStream::connect(path).await)?).await
            }
            Endpoint::Tcp { authority, tls: secure, .. } => {
                let host = authority.host().trim_start_matches('[').trim_end_matches(']');
                let port = authority.port_u16().unwrap_or_default();
                let stream = connected(endpoint, TcpStream::connect((host, port)).await)?;
                connected(endpoint, stream.set_nodelay(true))?;
                if !secure {
                    return shake(endpoint, request, stream).await;
                }
                let name =
                    ServerName::try_from(host.to_owned()).map_err(|error| unreachable(endpoint, &error))?;
                let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
                shake(endpoint, request, connected(endpoint, stream)?).await
            }
        }
    };
    let opened = tokio::time::timeout(CONNECT_MAX, opening).await;
    opened.unwrap_or_else(|late| Err(unreachable(endpoint, &late)))
}

fn request(endpoint: &Endpoint, path: &str, token: Option<&HeaderValue>) -> Result<Request<()>, ApiError> {
    let url = endpoint.url(path).replacen("http", "ws", 1);
    let mut request = url.into_client_request().map_err(|error| unreachable(endpoint, &error))?;
    if let Some(token) = token {
        request.headers_mut().insert(header::AUTHORIZATION, token.clone());
    }
    Ok(request)
}

async fn shake<S>(endpoint: &Endpoint, request: Request<()>, stream: S) -> Result<DuplexStream, ApiError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match client_async(request, stream).await {
        Ok((socket, _)) => {
            let (near, far) = tokio::io::duplex(BUFFER_BYTES);
            tokio::spawn(join(socket, far));
            Ok(near)
        }
        Err(SocketError::Http(response)) => {
            let problem = response.body().as_deref().and_then(|body| serde_json::from_slice(body).ok());
            let status = response.status();
            Err(problem.map_or_else(
                || ApiError::Garbled { endpoint: endpoint.to_string(), reason: format!("status {status}") },
                ApiError::Problem,
            ))
        }
        Err(error) => Err(unreachable(endpoint, &error)),
    }
}

/// Carries bytes between the two until one of them ends.
async fn join<S>(socket: WebSocketStream<S>, bytes: DuplexStream)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sink, mut messages) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(bytes);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        tokio::select! {
            read = reader.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    let message = Message::Binary(buffer[..count].to_vec().into());
                    if sink.send(message).await.is_err() {
                        return;
                    }
                }
            },
            message = messages.next() => match message {
                Some(Ok(Message::Binary(data))) if writer.write_all(&data).await.is_ok() => {}
                Some(Ok(Message::Text(text))) if writer.write_all(text.as_bytes()).await.is_ok() => {}
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => break,
            },
        }
    }
    // The other side may be gone already.
    let _ = sink.close().await;
}

fn connected<T>(endpoint: &Endpoint, result: std::io::Result<T>) -> Result<T, ApiError> {
    result.map_err(|error| unreachable(endpoint, &error))
}

fn unreachable(endpoint: &Endpoint, error: &(dyn std::error::Error + 'static)) -> ApiError {
    ApiError::Unreachable { endpoint: endpoint.to_string(), reason: chain(error) }
}
