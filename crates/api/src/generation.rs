//! Generations: a controller that was replaced cannot change anything any more.
//!
//! Every changing request carries `Rackmem-Generation: N`. Whoever keeps state remembers the highest number it has seen,
//! durably, and refuses smaller ones. The judgement is pure; it has to be made in the same transaction as the change.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::{Problem, ProblemType};

/// Name of the header.
pub const HEADER: &str = "rackmem-generation";

/// Largest generation: what SQLite and JSON readers keep exactly.
pub const MAX: u64 = (1 << 53) - 1;

/// Where the present generation is told.
const WHERE: &str = "an agent's GET /v1/host or a controller's GET /v1/controller";

/// Number of a controller's reign. It rises when another controller takes over.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// Judges a request of generation `asked` where `self` is the highest seen: the generation to remember from now on.
    ///
    /// Who keeps state calls this inside the transaction that makes the change, so that no older request can slip in
    /// between.
    pub fn admit(self, asked: Self) -> Result<Self, Problem> {
        if asked >= self {
            return Ok(asked);
        }
        let detail = format!(
            "generation {} is older than {}, which is in force: another controller has taken over, or send the present \
             generation, which {WHERE} shows",
            asked.0, self.0
        );
        Err(Problem { generation: Some(self.0), ..Problem::new(ProblemType::StaleGeneration, detail) })
    }
}

impl<S: Sync> FromRequestParts<S> for Generation {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(HEADER) else {
            return Err(Problem::new(
                ProblemType::GenerationRequired,
                format!(
                    "a request that changes something carries the header Rackmem-Generation: take the number that {WHERE} shows"
                ),
            ));
        };
        let number = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|number| *number <= MAX);
        number.map(Self).ok_or_else(|| {
            Problem::new(
                ProblemType::Malformed,
                format!("the header Rackmem-Generation is no whole number from 0 to {MAX}"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_refusal_names_the_present_generation() {
        let problem = Generation(7).admit(Generation(6)).unwrap_err();
        assert_eq!((problem.status, problem.generation), (412, Some(7)));
        assert!(problem.detail.contains("GET /v1/host"), "{problem}");
        assert!(problem.detail.contains("GET /v1/controller"), "{problem}");
    }

    proptest! {
        #[test]
        fn what_is_remembered_never_falls(asked in prop::collection::vec(0u64..20, 0..50)) {
            let mut highest = Generation::default();
            for asked in asked.into_iter().map(Generation) {
                match highest.admit(asked) {
                    Ok(next) => {
                        prop_assert_eq!(next, highest.max(asked));
                        highest = next;
                    }
                    Err(_) => prop_assert!(asked < highest),
                }
            }
        }
    }
}
