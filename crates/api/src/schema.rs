//! Schemas of types that are defined in crates which know nothing of OpenAPI. They are named in `value_type` attributes
//! only; no value of them ever exists. And how tokens are shown, which all APIs have in common.

use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::{Modify, ToSchema};

/// An amount of memory in bytes.
#[derive(ToSchema)]
#[schema(as = Bytes, example = 4_294_967_296_u64, maximum = 9_007_199_254_740_991_u64)]
pub struct BytesSchema(#[allow(dead_code, reason = "only its schema is used")] u64);

/// Address of a memory server: `HOST:PORT`, `unix:PATH` or `shm:PATH`.
#[derive(ToSchema)]
#[schema(as = ServerAddress, example = "10.0.0.7:7070", pattern = "^(unix:.+|shm:.+|[A-Za-z0-9.-]+:[0-9]{1,5}|\\[[0-9a-f:]+\\]:[0-9]{1,5})$")]
pub struct ServerAddressSchema(#[allow(dead_code, reason = "only its schema is used")] String);

/// Adds to a document that a token is shown with each request, or none where the server asks for none.
pub(crate) struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut OpenApi) {
        const NAME: &str = "token";
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The token, where the server was given one or several."))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(NAME, SecurityScheme::Http(scheme));
        let shown = SecurityRequirement::new(NAME, [""; 0]);
        document.security = Some(vec![shown, SecurityRequirement::default()]);
    }
}
