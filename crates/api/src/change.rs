//! What comes with every changing request, beside its content.

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
