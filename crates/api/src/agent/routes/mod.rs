//! The agent's API over HTTP: one router for any [`AgentApi`], and the OpenAPI document that it is described by.

mod attachments;
mod changes;
mod console;
mod fleet;
mod host;
mod operations;
mod served;
mod vms;

use std::sync::Arc;

use axum::{Extension, Router};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use fleet::fleet;

use super::AgentApi;
use crate::problem::{Problem, ProblemType};
use crate::schema::Bearer;
use served::Served;

/// Declares handlers as routes: their paths and methods are those of the OpenAPI document.
///
/// `utoipa_axum::routes!` does the same, but not for handlers that are generic over what they serve.
macro_rules! declare {
    ($router:expr, $api:ident: $($handler:ident),+ $(,)?) => {
        utoipa_axum::paste! {{
            #[allow(unused_imports, reason = "which of them a handler needs is the macro's business")]
            use utoipa::{Path as _, __dev::{SchemaReferences as _, Tags as _}};
            use utoipa_axum::PathItemExt as _;
            let mut router = $router;
            $({
                let mut schemas = Vec::new();
                [<__path_ $handler>]::schemas(&mut schemas);
                let (path, methods) = ([<__path_ $handler>]::path(), [<__path_ $handler>]::methods());
                let method_router = methods.iter().fold(axum::routing::MethodRouter::new(), |router, method| {
                    router.on(method.to_method_filter(), $handler::<$api>)
                });
                let mut paths = utoipa::openapi::path::Paths::new();
                paths.add_path_operation(&path, methods, [<__path_ $handler>]::operation());
                router = router.routes((schemas, paths, method_router));
            })+
            router
        }}
    };
}
pub(crate) use declare;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "rackmem agent",
        description = "The API of the SDM agent (interface S7 of D4.1): the virtual machines of one compute brick and \
                       their far memory. Amounts of memory are whole numbers of bytes, times are milliseconds since \
                       1970. Every change is an operation: it is answered with 202, and goes on whatever becomes of \
                       the request.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "host", description = "The brick in numbers."),
        (name = "vms", description = "Virtual machines."),
        (name = "attachments", description = "Far memory of the brick: physical and logical attach."),
        (name = "operations", description = "Work that was accepted, and what happened."),
    ),
    components(schemas(Problem)),
    modifiers(&Bearer),
)]
struct Document;

fn declared<T: AgentApi>() -> OpenApiRouter {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(host::routes::<T>())
        .merge(vms::routes::<T>())
        .merge(changes::routes::<T>())
        .merge(attachments::routes::<T>())
        .merge(operations::routes::<T>())
        .merge(console::routes::<T>())
}

/// Routes without an agent; the agent comes with each request as [`Served`].
fn routes<T: AgentApi>() -> Router {
    Router::from(declared::<T>()).fallback(nothing_here).method_not_allowed_fallback(other_method)
}

async fn nothing_here() -> Problem {
    Problem::new(ProblemType::NotFound, "there is nothing here: GET /v1/openapi.json tells what there is")
}

async fn other_method() -> Problem {
    let detail = "this does not take that method: GET /v1/openapi.json tells which it takes";
    Problem::new(ProblemType::MethodNotAllowed, detail)
}

/// The API of one agent.
pub fn router<T: AgentApi>(agent: Arc<T>) -> Router {
    routes::<T>().layer(Extension(Served(agent)))
}

/// The OpenAPI document, made from the routes.
pub fn document<T: AgentApi>() -> utoipa::openapi::OpenApi {
    declared::<T>().into_openapi()
}

/// The OpenAPI document of the agent's API, as it is committed in `openapi/agent.json`.
pub fn openapi() -> &'static str {
    include_str!("../../../openapi/agent.json")
}
