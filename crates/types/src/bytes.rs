//! Amounts of memory, as people write and read them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::PAGE_SIZE;

/// An amount of memory in bytes. Parses `256MiB`, `256M`, `4GiB`, `4096`; prints in binary units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// The text is not an amount of memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an amount of memory: write a number and a unit, for example 256MiB or 4GiB")]
pub struct ParseBytesError(String);

const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl Bytes {
    /// `pages` pages.
    pub const fn from_pages(pages: u64) -> Self {
        Self(pages * PAGE_SIZE as u64)
    }

    /// Whole pages that fit.
    pub const fn pages(self) -> u64 {
        self.0 / PAGE_SIZE as u64
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // From where it is told as 1.0 of a unit with one digit, it is not told as 1024.0 of the one below.
        let least = |shift: u32| (1u64 << shift) - (1 << shift) / 20_480;
        let (unit, shift) = UNITS.into_iter().find(|(_, shift)| self.0 >= least(*shift)).unwrap_or(("B", 0));
        let text = if self.0.trailing_zeros() >= shift {
            format!("{}{unit}", self.0 >> shift)
        } else {
            format!("{:.1}{unit}", self.0 as f64 / (1u64 << shift) as f64)
        };
        f.pad(&text)
    }
}

impl FromStr for Bytes {
    type Err = ParseBytesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseBytesError(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = trimmed.split_at(digits);
        let number: u64 = number.parse().map_err(|_| error())?;
        let unit = unit.trim().to_ascii_lowercase();
        let shift = UNITS
            .into_iter()
            .find(|(name, _)| {
                let name = name.to_ascii_lowercase();
                // `256M` and `256MiB` mean the same: memory is never counted in powers of ten here.
                unit == name || (name.len() == 3 && unit == name[..1])
            })
            .map(|(_, shift)| shift)
            .or_else(|| unit.is_empty().then_some(0))
            .ok_or_else(error)?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("1K", 1024), ("256MiB", 256 << 20), ("4 GiB", 4 << 30)]
        {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "12MB", "99999999999TiB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn prints_the_largest_unit_that_fits() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (256 << 20, "256MiB"),
            ((3 << 30) / 2, "1.5GiB"),
            ((1 << 30) - 4096, "1.0GiB"),
            ((1 << 30) - (1 << 20), "1023MiB"),
            (1_073_689_395, "1023.9MiB"),
            (1_073_689_396, "1.0GiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn whole_units_survive_a_round_trip(number in 1u64..1023, shift in prop::sample::select(vec![0u32, 10, 20, 30, 40])) {
            let bytes = Bytes(number << shift);
            prop_assert_eq!(bytes.to_string().parse(), Ok(bytes));
        }
    }
}
