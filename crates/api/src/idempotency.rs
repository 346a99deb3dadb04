//! Idempotency keys: a request that is sent twice is done once.
//!
//! The header `Idempotency-Key` of a POST is kept with the operation that the request started, in the same transaction.
//! A second request with the same key gets that operation again; with the same key and another content it is refused.
//! So nothing is stored but two columns of the operation, and nothing can be lost between two stores.

use axum::body::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::problem::{Problem, ProblemType};

/// Name of the header.
pub const HEADER: &str = "idempotency-key";

/// Longest key: room for a UUID with a prefix, and little to keep.
pub const KEY_BYTES_MAX: usize = 128;

/// Time for which a key is remembered at least: longer than any client retries.
pub const KEPT: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// A key, and what the request was that it came with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// The client's key.
    pub key: String,
    /// Hash of the method, the path and the body.
    pub fingerprint: i64,
}

impl IdempotencyKey {
    /// The key `text` of a request.
    pub fn of(text: &str, method: &str, path: &str, body: &Bytes) -> Result<Self, Problem> {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > KEY_BYTES_MAX || !printable {
            return Err(Problem::new(
                ProblemType::Malformed,
                format!(
                    "the header Idempotency-Key has to be 1 to {KEY_BYTES_MAX} printable characters without \
                     spaces, for example a UUID"
                ),
            ));
        }
        let mut hash = Xxh3::new();
        for part in [method.as_bytes(), path.as_bytes(), body] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Ok(Self { key: text.to_owned(), fingerprint: hash.digest() as i64 })
    }

    /// Judges a request with this key, where `fingerprint` is the one that was kept with the same key.
    pub fn same_request(&self, fingerprint: i64) -> Result<(), Problem> {
        if self.fingerprint == fingerprint {
            return Ok(());
        }
        Err(Problem::new(
            ProblemType::KeyReused,
            format!(
                "the idempotency key '{}' was used for another request: take a new key for each request, and \
                 the same one only to send a request again",
                self.key
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str, body: &'static str) -> IdempotencyKey {
        IdempotencyKey::of("k1", "POST", path, &Bytes::from_static(body.as_bytes())).unwrap()
    }

    #[test]
    fn the_same_request_is_recognised_and_another_one_refused() {
        let first = key("/v1/vms", "{}");
        assert!(key("/v1/vms", "{}").same_request(first.fingerprint).is_ok());
        for other in [key("/v1/vms", "{ }"), key("/v1/vm", "s{}")] {
            assert_eq!(other.same_request(first.fingerprint).unwrap_err().kind, ProblemType::KeyReused);
        }
    }

    #[test]
    fn keys_are_short_and_printable() {
        for text in ["", "a b", "ä", &"x".repeat(129)] {
            assert!(IdempotencyKey::of(text, "POST", "/", &Bytes::new()).is_err(), "{text}");
        }
    }
}
