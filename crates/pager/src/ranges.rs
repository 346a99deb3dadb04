//! A set of addresses as disjoint ranges: the memory of a space that is registered. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint, non-adjacent ranges by their start.
#[derive(Clone, Debug, Default)]
pub(crate) struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    /// The range that holds `address`.
    pub(crate) fn containing(&self, address: u64) -> Option<Range<u64>> {
        let (&start, &end) = self.0.range(..=address).next_back()?;
        (address < end).then_some(start..end)
    }

    pub(crate) fn insert(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        while let Some((&s, &e)) = self.0.range(..=end).next_back().filter(|&(_, &e)| e >= start) {
            self.0.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.0.insert(start, end);
    }

    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        while let Some((&s, &e)) = self.0.range(..range.end).next_back().filter(|&(_, &e)| e > range.start) {
            self.0.remove(&s);
            if s < range.start {
                self.0.insert(s, range.start);
            }
            if e > range.end {
                self.0.insert(range.end, e);
            }
        }
    }

    /// The parts of `range` that are not in the set.
    pub(crate) fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        if let Some(inside) = self.containing(at) {
            at = inside.end;
        }
        for (&start, &end) in self.0.range(range.start..range.end) {
            if start > at {
                gaps.push(at..start);
            }
            at = at.max(end);
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// The ranges that have something in common with `range`, whole.
    pub(crate) fn overlapping(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let first = self.containing(range.start).map_or(range.start, |inside| inside.start);
        self.0.range(first..range.end).map(|(&start, &end)| start..end).collect()
    }

    /// The parts of `range` that are in the set.
    pub(crate) fn within(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let clip = |part: Range<u64>| part.start.max(range.start)..part.end.min(range.end);
        self.overlapping(range).into_iter().map(clip).filter(|part| !part.is_empty()).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(&start, &end)| start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(steps in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 0..40)) {
            let (mut ranges, mut model) = (RangeSet::default(), [false; 80]);
            for (insert, start, len) in steps {
                let range = start..start + len;
                if insert { ranges.insert(range.clone()) } else { ranges.remove(range.clone()) }
                model[range.start as usize..range.end as usize].fill(insert);
            }
            for (i, &inside) in model.iter().enumerate() {
                prop_assert_eq!(ranges.containing(i as u64).is_some(), inside);
            }
            let common: Vec<u64> = ranges.overlapping(&(20..40)).into_iter().flatten().collect();
            prop_assert!((20..40).all(|i| common.contains(&i) == model[i as usize]));
            let within: Vec<u64> = ranges.within(&(20..40)).into_iter().flatten().collect();
            let expected: Vec<u64> = (20..40).filter(|&i| model[i as usize]).collect();
            prop_assert_eq!(within, expected);
            let covered: Vec<u64> = ranges.gaps(0..80).into_iter().flatten().collect();
            let expected: Vec<u64> = (0..80).filter(|&i| !model[i as usize]).collect();
            prop_assert_eq!(covered, expected);
        }
    }
}
