//! `/v1/vms/{name}/console`: a machine's serial console over a WebSocket, bytes both ways.

use axum::body::Bytes;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use utoipa_axum::router::OpenApiRouter;

use super::declare;
use super::served::Served;
use crate::agent::{AgentApi, Console};
use crate::extract::InPath;
use crate::name::VmName;
use crate::problem::{Problem, ProblemType};
use crate::serve::Closing;

pub(super) fn routes<T: AgentApi>() -> OpenApiRouter {
    declare!(OpenApiRouter::default(), T: vm_console)
}

/// Largest message from a client: people type, and paste at most a few pages.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Bytes of the console in one message.
const OUTPUT_BYTES: usize = 8 << 10;

/// The machine's serial console, as a WebSocket: binary messages in both directions.
#[utoipa::path(
    get, path = "/v1/vms/{name}/console", tag = "vms", operation_id = "vm_console",
    params(("name" = VmName, Path, description = "The machine.")),
    responses(
        (status = 101, description = "The WebSocket is open."),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "No WebSocket."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = "default", body = Problem, content_type = "application/problem+json", description = "A problem."),
    ),
)]
async fn vm_console<T: AgentApi>(
    Served(agent): Served<T>,
    InPath(name): InPath<VmName>,
    closing: Closing,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|_| {
        Problem::new(
            ProblemType::Malformed,
            "a console is a WebSocket: use `rackmem vm console`, or a WebSocket client",
        )
    })?;
    let console = agent.vm_console(name).await?;
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
