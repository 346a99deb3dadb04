//! What a change makes of a switch's ports. Pure: drivers say what is there and do what comes out.
//!
//! A port redirects what comes in to one other port. A circuit is two redirects that face each other.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Pair, SwitchError};

/// Where each port that has a redirect sends what comes in.
pub(crate) type Redirects = BTreeMap<u16, u16>;

/// Circuits to end and circuits to set, as one change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Circuits that end; one that is not there is fine.
    pub disconnect: Vec<Pair>,
    /// Circuits that are set; one that is there is fine.
    pub connect: Vec<Pair>,
}

/// One thing to do to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// Nothing that comes in goes anywhere.
    Clear(u16),
    /// What comes in at the first goes out at the second.
    Set(u16, u16),
}

/// The circuits among `redirects`: those that go both ways.
pub(crate) fn circuits(redirects: &Redirects) -> BTreeSet<Pair> {
    let both_ways = redirects.iter().filter(|(from, to)| redirects.get(to) == Some(from));
    both_ways.filter_map(|(from, to)| Pair::new(*from, *to).ok()).collect()
}

/// The redirects of `pairs`.
pub(crate) fn redirects(pairs: &BTreeSet<Pair>) -> Redirects {
    pairs
        .iter()
        .flat_map(|pair| {
            let [a, b] = pair.ports();
            [(a, b), (b, a)]
        })
        .collect()
}

/// The circuits after `change`, if it may be made.
pub(crate) fn after(
    ports: &[u16],
    present: &BTreeSet<Pair>,
    change: &Change,
) -> Result<BTreeSet<Pair>, SwitchError> {
    for port in change.disconnect.iter().chain(&change.connect).flat_map(|pair| pair.ports()) {
        if !ports.contains(&port) {
            let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            return Err(SwitchError::UnknownPort { port, ports });
        }
    }
    let mut wanted = present.clone();
    wanted.retain(|pair| !change.disconnect.contains(pair));
    let kept = wanted.clone();
    for pair in &change.connect {
        for port in pair.ports() {
            let other = |by: &&Pair| by.has(port) && *by != pair;
            if let Some(by) = kept.iter().find(other) {
                return Err(SwitchError::Taken { port, by: *by });
            }
            if wanted.iter().any(|by| other(&by)) {
                return Err(SwitchError::Twice(port));
            }
        }
        wanted.insert(*pair);
    }
    Ok(wanted)
}

/// What leads from `present` to `wanted`. All that ends is ended before anything new begins, so that no port is ever connected
/// to one that it belongs to neither before nor afterwards.
pub(crate) fn edits(present: &Redirects, wanted: &Redirects) -> Vec<Edit> {
    let ends = present.iter().filter(|(from, to)| wanted.get(from) != Some(to));
    let begins = wanted.iter().filter(|(from, to)| present.get(from) != Some(to));
    let clears = ends.map(|(from, _)| Edit::Clear(*from));
    clears.chain(begins.map(|(from, to)| Edit::Set(*from, *to))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]
mod tests {
    use super::*;

    #[test]
    fn a_direction_alone_is_no_circuit_and_is_cleared() {
        let present = Redirects::from([(0, 1), (1, 0), (2, 3)]);
        let pairs = circuits(&present);
        assert_eq!(pairs, BTreeSet::from([Pair::new(0, 1).unwrap()]));
        assert_eq!(edits(&present, &redirects(&pairs)), [Edit::Clear(2)]);
    }

    #[test]
    fn everything_ends_before_anything_begins() {
        let present = Redirects::from([(0, 1), (1, 0), (2, 3), (3, 2)]);
        let wanted = Redirects::from([(0, 3), (3, 0), (1, 2), (2, 1)]);
        let edits = edits(&present, &wanted);
        let first_set = edits.iter().position(|edit| matches!(edit, Edit::Set(..))).unwrap();
        assert_eq!((edits.len(), first_set), (8, 4));
    }
}
