//! `/v1/vms/{name}/console`: a machine's serial console over a WebSocket, bytes both ways.

use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;

use super::declare;
use super::served::Served;
use crate::agent::AgentApi;
use crate::console::{self, Upgrade};
use crate::extract::InPath;
use crate::name::VmName;
use crate::problem::Problem;
use crate::serve::Closing;

pub(super) fn routes<T: AgentApi>() -> OpenApiRouter {
    declare!(OpenApiRouter::default(), T: vm_console)
}

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
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    console::answer(upgrade, closing, agent.vm_console(name)).await
}
