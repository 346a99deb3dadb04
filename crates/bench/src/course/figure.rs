//! A figure: something measured, and the bar that it has to reach.

use serde::Serialize;

/// On which side of the bar a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bar {
    AtLeast,
    AtMost,
}

/// One row of the result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    /// Empty for ratios.
    pub(crate) unit: &'static str,
    /// Absent where what it is made of could not be measured.
    pub(crate) measured: Option<f64>,
    /// Absent for figures that are only reported.
    pub(crate) bar: Option<(Bar, f64)>,
    /// The two sides of a ratio, in words.
    pub(crate) detail: String,
}

impl Figure {
    pub(crate) fn ratio(name: impl Into<String>, measured: Option<f64>, bar: Option<(Bar, f64)>) -> Self {
        Self { name: name.into(), unit: "", measured, bar, detail: String::new() }
    }

    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Whether the bar is reached; nothing without a bar. What was not measured did not reach it.
    pub(crate) fn reached(&self) -> Option<bool> {
        let (side, bar) = self.bar?;
        Some(self.measured.is_some_and(|measured| match side {
            Bar::AtLeast => measured >= bar,
            Bar::AtMost => measured <= bar,
        }))
    }

    /// How many times better than the bar: above 1 it is reached.
    pub(crate) fn margin(&self) -> Option<f64> {
        let ((side, bar), measured) = (self.bar?, self.measured?);
        Some(match side {
            Bar::AtLeast => measured / bar,
            Bar::AtMost => bar / measured,
        })
    }

    pub(crate) fn measured_text(&self) -> String {
        self.measured.map_or_else(|| "not measured".to_owned(), |value| self.text(value))
    }

    pub(crate) fn bar_text(&self) -> String {
        match self.bar {
            None => String::new(),
            Some((Bar::AtLeast, bar)) => format!("≥ {}", self.text(bar)),
            Some((Bar::AtMost, bar)) => format!("≤ {}", self.text(bar)),
        }
    }

    fn text(&self, value: f64) -> String {
        let digits = if value.abs() >= 100.0 { 0 } else { 2 };
        match self.unit {
            "" => format!("{value:.digits$} ×"),
            unit => format!("{value:.digits$} {unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_reached_from_its_side() {
        let check = |measured, bar| Figure::ratio("f", measured, bar).reached();
        assert_eq!(check(Some(1.2), Some((Bar::AtMost, 1.25))), Some(true));
        assert_eq!(check(Some(1.3), Some((Bar::AtMost, 1.25))), Some(false));
        assert_eq!(check(Some(1.3), Some((Bar::AtLeast, 1.25))), Some(true));
        assert_eq!(check(None, Some((Bar::AtLeast, 1.25))), Some(false));
        assert_eq!(check(Some(1.0), None), None);
    }
}
