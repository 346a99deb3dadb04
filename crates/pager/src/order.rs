//! In which order changes of mappings took place. Pure: it knows what was reported, what was mapped before, and nothing else.
//!
//! A thread makes its change first and reports it afterwards, and a move that replaces another mapping is reported in three
//! messages, each after the one before has been read. So when several threads change mappings at once, the messages come
//! in another order than the changes. What is sure:
//!
//! - What is done to *one* mapping is done by threads that wait for one another, so it is reported in the order in which it
//!   was done. Only *places* are contended: one thread leaves an address, another takes it, and the second reports first.
//! - A move is followed by a message that its old place is unmapped. It says nothing more, and by the time it comes
//!   somebody else may live there.
//! - Nothing moves to where something is. If a move went to a place that is taken as far as we know, then what is there had
//!   left before, and the message about that is among the later ones.
//! - Only what is registered is reported. Something may be registered of which we do not know yet: its registration is under
//!   way. So a message that a place is left may be about such a stranger, even where the place is free as far as we know.
//!
//! Where several later messages could be that one, all orders that they allow are given: first those without strangers, and
//! of these the likeliest first.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// Orders that are looked for. Two are rare.
const ORDERS_MAX: usize = 16;
/// Choices that are tried for them.
const TRIALS_MAX: usize = 1024;
/// Marks the origin of what was mapped although we did not know it. No address is that high.
const STRANGER: u64 = 1 << 63;

/// A reported change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Pages are dropped.
    Remove(Range<u64>),
    /// A range is unmapped.
    Unmap(Range<u64>),
    /// A range moves: from, to, bytes.
    Move(u64, u64, u64),
    /// The process forks.
    Fork,
}

impl Step {
    /// The place that is empty after it.
    fn vacates(&self) -> Option<Range<u64>> {
        match self {
            Self::Unmap(range) => Some(range.clone()),
            Self::Move(from, _, len) => Some(*from..from + len),
            Self::Remove(_) | Self::Fork => None,
        }
    }

    /// The places that it is about.
    pub(crate) fn places(&self) -> Vec<Range<u64>> {
        match self {
            Self::Remove(range) | Self::Unmap(range) => vec![range.clone()],
            Self::Move(from, to, len) => vec![*from..from + len, *to..to + len],
            Self::Fork => Vec::new(),
        }
    }
}

/// Something that is mapped: what it was at first, by its address then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    end: u64,
    origin: u64,
    dropped: bool,
}

/// What is mapped where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout(BTreeMap<u64, Piece>);

impl Layout {
    /// What is mapped before any of the changes.
    pub(crate) fn new(mapped: impl Iterator<Item = Range<u64>>) -> Self {
        let piece =
            |range: Range<u64>| (range.start, Piece { end: range.end, origin: range.start, dropped: false });
        Self(mapped.map(piece).collect())
    }

    /// What the page at `address` was at first: its address then, and whether it has been dropped since.
    pub(crate) fn origin(&self, address: u64) -> Option<(u64, bool)> {
        let (&start, piece) = self.0.range(..=address).next_back()?;
        (address < piece.end).then_some((piece.origin + (address - start), piece.dropped))
    }

    fn overlaps(&self, range: &Range<u64>) -> bool {
        self.0.range(..range.end).next_back().is_some_and(|(_, piece)| piece.end > range.start)
    }

    fn covers(&self, range: &Range<u64>) -> bool {
        let mut at = range.start;
        while at < range.end {
            match self.0.range(..=at).next_back() {
                Some((_, piece)) if piece.end > at => at = piece.end,
                _ => return false,
            }
        }
        true
    }

    /// Puts strangers where nothing is known.
    fn fill(&mut self, range: &Range<u64>) {
        let mut at = range.start;
        while at < range.end {
            let before = self.0.range(..=at).next_back().map_or(0, |(_, piece)| piece.end);
            if before > at {
                at = before;
                continue;
            }
            let end = self.0.range(at..range.end).next().map_or(range.end, |(&next, _)| next);
            self.0.insert(at, Piece { end, origin: STRANGER | at, dropped: false });
            at = end;
        }
    }

    fn split(&mut self, at: u64) {
        let Some((&start, &piece)) = self.0.range(..at).next_back() else { return };
        if piece.end > at {
            self.0.insert(start, Piece { end: at, ..piece });
            self.0.insert(at, Piece { origin: piece.origin + (at - start), ..piece });
        }
    }

    /// Takes out what is in a range.
    fn take(&mut self, range: &Range<u64>) -> Vec<(u64, Piece)> {
        self.split(range.start);
        self.split(range.end);
        let starts: Vec<u64> = self.0.range(range.clone()).map(|(&start, _)| start).collect();
        starts.into_iter().filter_map(|start| Some((start, self.0.remove(&start)?))).collect()
    }

    /// What speaks against a step.
    fn strain(&self, step: &Step) -> Strain {
        let Step::Move(from, to, len) = *step else { return Strain::default() };
        let (source, place) = (from..from + len, to..to + len);
        let mut pieces = self.0.range(..source.end).rev().take_while(|(_, piece)| piece.end > source.start);
        let shift = |(start, piece): (&u64, &Piece)| piece.origin.wrapping_sub(*start);
        let first = pieces.next().map(shift);
        let is_torn = pieces.any(|piece| Some(shift(piece)) != first);
        Strain {
            impossible: u32::from(is_torn || self.overlaps(&place)),
            unlikely: u32::from(first.is_some() && !self.covers(&source)),
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Fork => {}
            Step::Unmap(range) => drop(self.take(range)),
            Step::Remove(range) => {
                for (start, piece) in self.take(range) {
                    self.0.insert(start, Piece { dropped: true, ..piece });
                }
            }
            Step::Move(from, to, len) => {
                self.fill(&(*from..from + len)); // all of it was registered, or it would not have been reported
                let moved = self.take(&(*from..from + len));
                self.take(&(*to..to + len));
                for (start, piece) in moved {
                    let start_new = start - from + to;
                    self.0.insert(start_new, Piece { end: start_new + (piece.end - start), ..piece });
                }
            }
        }
    }

    /// The same without needless borders.
    fn joined(self) -> Self {
        let mut joined: BTreeMap<u64, Piece> = BTreeMap::new();
        for (start, piece) in self.0 {
            match joined.last_entry() {
                Some(mut last)
                    if last.get().end == start
                        && last.get().origin + (start - last.key()) == piece.origin
                        && last.get().dropped == piece.dropped =>
                {
                    last.get_mut().end = piece.end;
                }
                _ => drop(joined.insert(start, piece)),
            }
        }
        Self(joined)
    }
}

/// An order in which the changes may have taken place.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Indexes of the changes; what says nothing is left out.
    pub(crate) steps: Vec<usize>,
    /// What is mapped where after them.
    pub(crate) layout: Layout,
    pub(crate) strain: Strain,
    /// Whether it takes a stranger for granted.
    pub(crate) has_strangers: bool,
}

/// What speaks against an order, worst first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Strain {
    /// Moves to where something was, as far as we know, or of what was several mappings.
    pub(crate) impossible: u32,
    /// Moves of what is known in part only. The rest may have grown since the keeper looked.
    pub(crate) unlikely: u32,
}

/// The orders that lead to different ends, the likeliest first; never none. All changes of all steps have been reported.
pub(crate) fn orders(mapped: &Layout, steps: &[Step]) -> Vec<Order> {
    let echoes = echoes(steps);
    let todo = (0..steps.len()).filter(|step| !echoes.contains(&Some(*step))).collect();
    let mut search = Search { steps, echoes, found: Vec::new(), trials: 0, later: VecDeque::new() };
    search.later.push_back(Branch { layout: mapped.clone(), todo, ..Branch::default() });
    while let Some(branch) = search.later.pop_front()
        && !search.is_enough()
    {
        search.go(branch);
    }
    search.found
}

/// For each move, the message that only says that its old place is unmapped.
fn echoes(steps: &[Step]) -> Vec<Option<usize>> {
    let mut echoes: Vec<Option<usize>> = vec![None; steps.len()];
    for (i, step) in steps.iter().enumerate() {
        if let Step::Move(from, _, len) = step {
            let echo = Step::Unmap(*from..from + len);
            echoes[i] =
                (i + 1..steps.len()).find(|later| steps[*later] == echo && !echoes.contains(&Some(*later)));
        }
    }
    echoes
}

/// What is common to two ranges, if anything.
fn common(a: &Range<u64>, b: &Range<u64>) -> Option<Range<u64>> {
    let common = a.start.max(b.start)..a.end.min(b.end);
    (common.start < common.end).then_some(common)
}

/// Orders that begin alike.
#[derive(Clone, Default)]
struct Branch {
    layout: Layout,
    todo: Vec<usize>,
    done: Vec<usize>,
    /// What is wanted next is the last of these, or the first that is to do.
    goals: Vec<usize>,
    strain: Strain,
    has_strangers: bool,
}

impl Branch {
    /// With a step that comes next, and which is about what is known or about a stranger.
    fn with(&self, next: usize, is_known: bool) -> Self {
        let mut branch = self.clone();
        branch.goals.push(next);
        branch.has_strangers |= !is_known;
        branch
    }
}

struct Search<'a> {
    steps: &'a [Step],
    echoes: Vec<Option<usize>>,
    found: Vec<Order>,
    trials: usize,
    /// Branches with strangers, which are tried when there are no others.
    later: VecDeque<Branch>,
}

impl Search<'_> {
    fn is_enough(&self) -> bool {
        !self.found.is_empty() && (self.found.len() >= ORDERS_MAX || self.trials >= TRIALS_MAX)
    }

    fn go(&mut self, mut branch: Branch) {
        self.trials += 1;
        while let Some(&goal) = branch.goals.last().or(branch.todo.first()) {
            if branch.goals.is_empty() {
                branch.goals.push(goal);
            }
            if let Some(before) = self.certainly_before(goal, &branch.todo, &branch.goals) {
                branch.goals.push(before);
                continue;
            }
            for (before, is_known) in self.perhaps_before(goal, &branch) {
                if self.found.len() >= ORDERS_MAX || self.trials >= TRIALS_MAX {
                    break;
                }
                let other = branch.with(before, is_known);
                if is_known {
                    self.go(other);
                } else {
                    self.later.push_back(other);
                }
            }
            if self.is_enough() {
                return;
            }
            let more = branch.layout.strain(&self.steps[goal]);
            branch.strain.impossible += more.impossible;
            branch.strain.unlikely += more.unlikely;
            branch.layout.apply(&self.steps[goal]);
            branch.todo.retain(|&step| step != goal);
            branch.done.push(goal);
            branch.goals.pop();
        }
        let layout = branch.layout.joined();
        match self.found.iter_mut().find(|order| order.layout == layout) {
            Some(order) => order.strain = order.strain.min(branch.strain),
            None => self.found.push(Order {
                steps: branch.done,
                layout,
                strain: branch.strain,
                has_strangers: branch.has_strangers,
            }),
        }
    }

    /// A change that took place before the move `goal`. One that is reported earlier and is about the place where the move
    /// went is about what was there before: what is done to the moved mapping there is reported later. And while the
    /// mover itself has not gone on, nothing is done to it there.
    fn certainly_before(&self, goal: usize, todo: &[usize], goals: &[usize]) -> Option<usize> {
        let Step::Move(_, to, len) = self.steps[goal] else { return None };
        let place = to..to + len;
        let is_before = |&&step: &&usize| {
            let other = &self.steps[step];
            let is_about = |range: Range<u64>| common(&range, &place).is_some();
            if step < goal {
                other.places().into_iter().any(is_about)
            } else {
                self.echoes[goal].is_some_and(|echo| step < echo) && other.vacates().is_some_and(is_about)
            }
        };
        todo.iter().filter(|step| **step != goal && !goals.contains(step)).find(is_before).copied()
    }

    /// Changes of which one may have made room for `goal`, and whether that is known to have been taken.
    fn perhaps_before(&self, goal: usize, branch: &Branch) -> Vec<(usize, bool)> {
        let Step::Move(_, to, len) = self.steps[goal] else { return Vec::new() };
        let (place, layout) = (to..to + len, &branch.layout);
        let room = |step: usize| {
            let vacated = self.steps[step].vacates()?;
            let is_known = layout.overlaps(&common(&vacated, &place)?);
            // What moves is one mapping: one that we know, or a stranger.
            let is_whole = match self.steps[step] {
                Step::Move(..) if is_known => layout.covers(&vacated),
                Step::Move(..) => !layout.overlaps(&vacated),
                _ => true,
            };
            is_whole.then_some((step, is_known))
        };
        let others = branch.todo.iter().filter(|step| **step != goal && !branch.goals.contains(step));
        others.filter_map(|&step| room(step)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout(ranges: &[Range<u64>]) -> Layout {
        Layout::new(ranges.iter().cloned())
    }

    #[test]
    fn a_place_is_left_before_it_is_taken() {
        // One thread moves 0..4 to 20 and has its move reported late; another takes the free place for 10..14.
        let steps = [Step::Move(10, 0, 4), Step::Move(0, 20, 4), Step::Unmap(0..4), Step::Unmap(10..14)];
        let orders = orders(&layout(&[0..4, 10..14]), &steps);
        assert_eq!(orders[0].steps, [1, 0]);
        assert_eq!(orders[0].layout.origin(0), Some((10, false)));
        assert_eq!(orders[0].layout.origin(20), Some((0, false)));
    }

    #[test]
    fn places_are_left_one_after_another() {
        let steps = [
            Step::Move(20, 10, 4),
            Step::Move(10, 0, 4),
            Step::Unmap(0..4),
            Step::Unmap(20..24),
            Step::Unmap(10..14),
        ];
        let orders = orders(&layout(&[0..4, 10..14, 20..24]), &steps);
        assert_eq!(orders[0].steps, [2, 1, 0]);
    }

    #[test]
    fn what_cannot_be_told_apart_gives_several_orders() {
        // Either the old tenant of 0..4 moved to 20 or was unmapped; the new one had the other fate.
        let steps = [
            Step::Move(10, 0, 4),
            Step::Unmap(10..14),
            Step::Move(0, 20, 4),
            Step::Unmap(0..4),
            Step::Unmap(0..4),
        ];
        let orders = orders(&layout(&[0..4, 10..14]), &steps);
        let at_20: Vec<_> = orders.iter().map(|order| order.layout.origin(20)).collect();
        assert!(at_20.contains(&Some((0, false))) && at_20.contains(&Some((10, false))), "{at_20:?}");
    }

    #[test]
    fn who_leaves_a_free_place_may_be_a_stranger() {
        // Another thread had mapped 20..24, and unmaps it before 0..4 moves there; or the moved mapping is unmapped there.
        let steps = [Step::Move(0, 20, 4), Step::Unmap(0..4), Step::Unmap(20..24)];
        let orders = orders(&Layout::new(std::iter::once(0..4)), &steps);
        assert_eq!(orders.iter().map(|order| order.steps.as_slice()).collect::<Vec<_>>(), [[0, 2], [2, 0]]);
        assert_eq!(orders[0].layout.origin(20), None);
        assert_eq!(orders[1].layout.origin(20), Some((0, false)));
    }

    #[test]
    fn a_stranger_may_have_moved_away() {
        let steps = [Step::Move(0, 20, 4), Step::Unmap(0..4), Step::Move(20, 40, 4), Step::Unmap(20..24)];
        let orders = orders(&Layout::new(std::iter::once(0..4)), &steps);
        assert_eq!(orders[0].layout.origin(40), Some((0, false)));
        assert_eq!(orders[1].layout.origin(20), Some((0, false)));
        assert_eq!(orders[1].layout.origin(40), Some((STRANGER | 20, false)), "something is there now");
    }

    /// A thread of the model: what it still has to report of its last change.
    #[derive(Clone, Default)]
    struct Thread {
        has: Option<Range<u64>>,
        reports: std::collections::VecDeque<Step>,
    }

    proptest! {
        /// Threads move and unmap, each its own mapping, at places that others have left; their reports are read in any
        /// order that their waiting allows. Of some mappings nothing is known. The true end must be among those that are
        /// found, as far as it is about known ones.
        #[test]
        fn the_truth_is_among_the_orders(
            choices in prop::collection::vec((0usize..4, 0u64..12, 0u8..6), 1..14),
            known in prop::sample::select(vec![4usize, 3, 2]),
        ) {
            let mut threads = vec![Thread::default(); 4];
            for (i, thread) in threads.iter_mut().enumerate() {
                thread.has = Some(i as u64 * 3..i as u64 * 3 + 2);
            }
            let all = || threads.iter().filter_map(|thread| thread.has.clone());
            let first = Layout::new(all().take(known));
            let mut truth = first.clone();
            all().skip(known).for_each(|stranger| truth.fill(&stranger));
            let mut read = Vec::new();
            for (number, place, choice) in choices {
                let thread = &mut threads[number];
                if let Some(report) = thread.reports.pop_front() {
                    read.push(report);
                    continue;
                }
                let Some(has) = thread.has.clone() else { continue };
                let to = place..place + 2;
                if choice > 0 && !truth.overlaps(&to) {
                    let step = Step::Move(has.start, to.start, 2);
                    truth.apply(&step);
                    thread.reports.extend([step, Step::Unmap(has)]);
                    thread.has = Some(to);
                } else {
                    let step = Step::Unmap(has);
                    truth.apply(&step);
                    thread.reports.push_back(step);
                    thread.has = None;
                }
            }
            for thread in &mut threads {
                read.extend(thread.reports.drain(..));
            }
            let of_known = |layout: &Layout| {
                let pieces = layout.0.iter().map(|(&at, &piece)| (at, piece));
                Layout(pieces.filter(|(_, piece)| piece.origin < STRANGER).collect())
            };
            let truth = of_known(&truth.joined());
            let found = orders(&first, &read);
            prop_assert!(!found.is_empty());
            let without_strangers = found.iter().filter(|order| !order.has_strangers).count();
            // Strangers must not crowd out what is found without them.
            let too_many = if known == 4 { without_strangers >= 8 } else { found.len() == ORDERS_MAX };
            prop_assert!(
                too_many || found.iter().any(|order| of_known(&order.layout) == truth),
                "{read:?} gave {found:?} instead of {truth:?}"
            );
        }
    }
}
