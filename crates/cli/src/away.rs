//! Servers that are away for a while, as while they are started again: who knows them asks again, after longer and longer pauses.

use std::time::Duration;

use rackmem_api::ApiError;
use rackmem_api::problem::ProblemType;

/// The first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Whether the same question may be answered later. An answer that is cut off counts: nothing was read of it.
pub(crate) fn is_away(error: &ApiError) -> bool {
    match error {
        ApiError::Unreachable { .. } | ApiError::Garbled { .. } => true,
        ApiError::Problem(problem) => problem.kind == ProblemType::Unavailable,
        _ => false,
    }
}

/// Pauses between attempts, each twice as long as the one before.
#[derive(Debug)]
pub(crate) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(PAUSES.0)
    }
}

impl Pauses {
    /// The next one.
    pub(crate) fn next(&mut self) -> Duration {
        let next = (self.0 * 2).min(PAUSES.1);
        std::mem::replace(&mut self.0, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackmem_api::Problem;

    #[test]
    fn pauses_grow_to_the_longest() {
        let mut pauses = Pauses::default();
        let told: Vec<u128> = (0..8).map(|_| pauses.next().as_millis()).collect();
        assert_eq!(told, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn who_refuses_is_not_away() {
        assert!(is_away(&ApiError::Unreachable { endpoint: "a:1".into(), reason: "refused".into() }));
        assert!(!is_away(&ApiError::Problem(Problem::not_found("brick", "x"))));
    }
}
