//! What comes with every changing request, beside its content.

use utoipa::IntoParams;

use crate::generation::Generation;
use crate::idempotency::IdempotencyKey;

/// Under whose reign, with which key and by whom something is to be changed.
///
/// Whoever carries out the change judges the generation ([`Generation::admit`]) and the key
/// ([`IdempotencyKey::same_request`]) in the transaction that records the operation. The key comes first: a repetition
/// gets its operation whatever has happened since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Generation of the controller that asks.
    pub generation: Generation,
    /// Key of the request, where it has one.
    pub key: Option<IdempotencyKey>,
    /// Who asks, for the record: `local`, `token`, or the name in a certificate.
    pub by: String,
}

impl Change {
    /// A change without a key.
    pub fn new(generation: Generation, by: impl Into<String>) -> Self {
        Self { generation, key: None, by: by.into() }
    }
}

/// The headers of a changing request, for the OpenAPI document; [`crate::extract::Changing`] reads them.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "only its description is used")]
pub(crate) struct ChangeHeaders {
    /// The controller's generation; `GET /v1/host` of an agent and `GET /v1/controller` show the present one.
    #[param(rename = "rackmem-generation", minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    generation: u64,
    /// A request that is sent again with the same key is not done again.
    #[param(
        rename = "idempotency-key",
        nullable = false,
        min_length = 1,
        max_length = 128,
        pattern = "^[!-~]+$"
    )]
    key: Option<String>,
}
