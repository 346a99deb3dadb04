//! Latencies of touches and requests, and the numbers that are taken out of them.

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Longest latency that is told apart, in nanoseconds: a minute. Longer ones count as a minute.
const LONGEST_NS: u64 = 60_000_000_000;

/// A histogram of nanoseconds with three significant digits.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(hdrhistogram::Histogram<u64>);

/// What is kept of a histogram. All times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

impl Latencies {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(hdrhistogram::Histogram::new_with_bounds(1, LONGEST_NS, 3)?))
    }

    pub(crate) fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    pub(crate) fn add(&mut self, other: &Self) -> Result<()> {
        Ok(self.0.add(&other.0)?)
    }

    pub(crate) fn summary(&self) -> Summary {
        let us = |ns: u64| ns as f64 / 1000.0;
        Summary {
            count: self.0.len(),
            mean_us: self.0.mean() / 1000.0,
            p50_us: us(self.0.value_at_quantile(0.5)),
            p99_us: us(self.0.value_at_quantile(0.99)),
            max_us: us(self.0.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_speaks_microseconds() {
        let mut latencies = Latencies::new().unwrap();
        for ns in [1000, 2000, 9_000_000] {
            latencies.record(ns);
        }
        let summary = latencies.summary();
        assert_eq!(summary.count, 3);
        assert!((summary.p50_us - 2.0).abs() < 0.01, "{summary:?}");
        assert!((summary.max_us / 9000.0 - 1.0).abs() < 0.001, "{summary:?}");
    }
}
