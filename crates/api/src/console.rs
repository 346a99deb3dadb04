//! Consoles: a machine's serial console as a stream of bytes, and a WebSocket that carries it, binary messages in both directions.

use std::fmt;
use std::future::Future;

use axum::body::Bytes;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::problem::{Problem, ProblemType};
use crate::serve::Closing;

/// Largest message from a client: people type, and paste at most a few pages.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Bytes of the console in one message.
const OUTPUT_BYTES: usize = 8 << 10;

/// Both directions of a machine's console.
pub trait ConsoleIo: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ConsoleIo for T {}

/// A machine's console, open.
pub struct Console(pub Box<dyn ConsoleIo>);

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Console")
    }
}

/// The WebSocket that a request asks for, if it asks for one.
pub(crate) type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Answers with a WebSocket that carries the console which `open` gives. It is not opened for who asks for no WebSocket.
pub(crate) async fn answer(
    upgrade: Upgrade,
    closing: Closing,
    open: impl Future<Output = Result<Console, Problem>>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|_| {
        Problem::new(
            ProblemType::Malformed,
            "a console is a WebSocket: use `rackmem vm console`, or a WebSocket client",
        )
    })?;
    let console = open.await?;
    Ok(upgrade.max_message_size(MESSAGE_BYTES_MAX).on_upgrade(|socket| join(socket, console, closing)))
}

/// Carries bytes between the two until one of them ends.
async fn join(mut socket: WebSocket, Console(mut console): Console, closing: Closing) {
    let closed = closing.wait();
    tokio::pin!(closed);
    let mut output = vec![0; OUTPUT_BYTES];
    loop {
        tokio::select! {
            () = &mut closed => break,
            read = console.read(&mut output) => match read {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    let bytes = Bytes::copy_from_slice(&output[..count]);
                    if socket.send(Message::Binary(bytes)).await.is_err() {
                        return;
                    }
                }
            },
            message = socket.recv() => match message {
                Some(Ok(Message::Binary(bytes))) if console.write_all(&bytes).await.is_ok() => {}
                Some(Ok(Message::Text(text))) if console.write_all(text.as_bytes()).await.is_ok() => {}
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => break,
            },
        }
    }
    // The other side may be gone already.
    let _ = socket.send(Message::Close(None)).await;
}
