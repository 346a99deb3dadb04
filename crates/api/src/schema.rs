//! Schemas of types that are defined in crates which know nothing of OpenAPI. They are named in `value_type` attributes
//! only; no value of them ever exists.

use utoipa::ToSchema;

/// An amount of memory in bytes.
#[derive(ToSchema)]
#[schema(as = Bytes, example = 4_294_967_296_u64, maximum = 9_007_199_254_740_991_u64)]
pub struct BytesSchema(#[allow(dead_code, reason = "only its schema is used")] u64);

/// Address of a memory server: `HOST:PORT`, `unix:PATH` or `shm:PATH`.
#[derive(ToSchema)]
#[schema(as = ServerAddress, example = "10.0.0.7:7070", pattern = "^(unix:.+|shm:.+|[A-Za-z0-9.-]+:[0-9]{1,5}|\\[[0-9a-f:]+\\]:[0-9]{1,5})$")]
pub struct ServerAddressSchema(#[allow(dead_code, reason = "only its schema is used")] String);
