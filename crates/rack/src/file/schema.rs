//! The rack file as it is written, before its names are looked up.

use rackmem_types::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::{Name, PortRef, Power, SwitchKind};

/// The whole file. Lists are named in the singular, because TOML repeats the name for each entry.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RackFile {
    #[serde(default)]
    pub(super) rack: Vec<Spanned<RackEntry>>,
    #[serde(default)]
    pub(super) tray: Vec<Spanned<TrayEntry>>,
    #[serde(default)]
    pub(super) compute: Vec<Spanned<ComputeEntry>>,
    #[serde(default)]
    pub(super) memory: Vec<Spanned<MemoryEntry>>,
    #[serde(default)]
    pub(super) accelerator: Vec<Spanned<AcceleratorEntry>>,
    #[serde(default)]
    pub(super) switch: Vec<Spanned<SwitchEntry>>,
    #[serde(default)]
    pub(super) cable: Vec<Spanned<CableEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RackEntry {
    pub(super) name: Spanned<Name>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrayEntry {
    pub(super) name: Spanned<Name>,
    pub(super) rack: Spanned<Name>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ComputeEntry {
    pub(super) name: Spanned<Name>,
    pub(super) tray: Spanned<Name>,
    pub(super) cores: u32,
    #[serde(deserialize_with = "written")]
    pub(super) local: Bytes,
    pub(super) ports: u16,
    #[serde(default)]
    pub(super) power: Switched,
    #[serde(default)]
    pub(super) watts: u32,
    pub(super) address: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemoryEntry {
    pub(super) name: Spanned<Name>,
    pub(super) tray: Spanned<Name>,
    #[serde(deserialize_with = "written")]
    pub(super) size: Bytes,
    pub(super) ports: u16,
    #[serde(default)]
    pub(super) power: Switched,
    #[serde(default)]
    pub(super) watts: u32,
    pub(super) address: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AcceleratorEntry {
    pub(super) name: Spanned<Name>,
    pub(super) tray: Spanned<Name>,
    pub(super) model: String,
    pub(super) slots: u32,
    pub(super) ports: u16,
    #[serde(default)]
    pub(super) power: Switched,
    #[serde(default)]
    pub(super) watts: u32,
    pub(super) address: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SwitchEntry {
    pub(super) name: Spanned<Name>,
    pub(super) tray: Option<Spanned<Name>>,
    pub(super) rack: Option<Spanned<Name>>,
    pub(super) kind: SwitchKind,
    pub(super) ports: u16,
    #[serde(default)]
    pub(super) watts: u32,
    pub(super) address: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CableEntry {
    pub(super) ends: Spanned<Ends>,
    /// For example `100ns`.
    #[serde(default, deserialize_with = "nanoseconds")]
    pub(super) latency: u32,
    /// For example `10Gbit`.
    #[serde(default, deserialize_with = "megabits")]
    pub(super) bandwidth: u32,
}

/// Read as a list first: of an array, the parser drops what it is too long by.
#[derive(Deserialize)]
#[serde(try_from = "Vec<PortRef>")]
pub(super) struct Ends(pub(super) [PortRef; 2]);

impl TryFrom<Vec<PortRef>> for Ends {
    type Error = String;

    fn try_from(ends: Vec<PortRef>) -> Result<Self, String> {
        let problem = |ends: Vec<PortRef>| {
            format!(
                "a cable has 2 ends, not {}: write two ports, for example [\"c1:0\", \"s1:4\"]",
                ends.len()
            )
        };
        ends.try_into().map(Self).map_err(problem)
    }
}

/// Whether a brick is on. `waking` is nothing that one could write.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Switched {
    Off,
    #[default]
    On,
}

impl From<Switched> for Power {
    fn from(switched: Switched) -> Self {
        match switched {
            Switched::Off => Self::Off,
            Switched::On => Self::On,
        }
    }
}

fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// A number with one of the units, as so many of the smallest.
fn measure(text: &str, what: &str, example: &str, units: &[(&str, u32)]) -> Result<u32, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit.trim()).filter(|_| digits > 0);
    let Some((unit, factor)) = factor else {
        return Err(format!("'{text}' is not a {what}: write {example}"));
    };
    let amount = number.parse::<u32>().ok().and_then(|number| number.checked_mul(*factor));
    amount.ok_or_else(|| format!("'{text}' is too much: a {what} is at most {}{unit}", u32::MAX / factor))
}

fn nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let example = "a whole number and ns, us or ms, for example 100ns";
    let units = [("ns", 1), ("us", 1_000), ("µs", 1_000), ("ms", 1_000_000)];
    measure(&String::deserialize(deserializer)?, "latency", example, &units).map_err(D::Error::custom)
}

fn megabits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let example = "a whole number and Mbit, Gbit or Tbit, for example 10Gbit";
    let units = [("Mbit", 1), ("Gbit", 1_000), ("Tbit", 1_000_000)];
    measure(&String::deserialize(deserializer)?, "bandwidth", example, &units).map_err(D::Error::custom)
}
