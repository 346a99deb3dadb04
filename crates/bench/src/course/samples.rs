//! What was measured: named samples, one for each round.

use std::collections::BTreeMap;

use serde::Serialize;

/// Samples by name, for example `touch/rackmem/random/25/reads`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Samples(BTreeMap<String, Vec<f64>>);

/// A median and how far the samples lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Samples {
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64) {
        self.0.entry(name.into()).or_default().push(value);
    }

    /// Median of the samples under `name`.
    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        Some(self.spread(name)?.median)
    }

    pub(crate) fn spread(&self, name: &str) -> Option<Spread> {
        Spread::of(self.0.get(name)?)
    }

    /// One median divided by another.
    pub(crate) fn ratio(&self, of: &str, to: &str) -> Option<f64> {
        Some(self.median(of)? / self.median(to)?)
    }

    /// Names and spreads, in the order of the names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Spread)> {
        self.0.iter().filter_map(|(name, values)| Some((name.as_str(), Spread::of(values)?)))
    }
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            (sorted[half - 1] + sorted[half]) / 2.0
        } else {
            sorted[half]
        };
        Some(Self { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_medians() {
        let mut samples = Samples::default();
        for value in [3.0, 1.0, 100.0] {
            samples.add("a", value);
        }
        samples.add("b", 1.0);
        samples.add("b", 2.0);
        assert_eq!(samples.spread("a"), Some(Spread { median: 3.0, min: 1.0, max: 100.0 }));
        assert_eq!(samples.ratio("a", "b"), Some(2.0));
        assert_eq!(samples.ratio("a", "c"), None);
    }
}
