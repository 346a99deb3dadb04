//! When a VM in elastic mode gets another size: the guest's numbers in, a decision with its reason out.
//!
//! Pure: samples carry their time. It never asks a guest and never changes one; it proposes a size.
//!
//! Growth is immediate, because a guest that runs out kills its programs within seconds. Shrinking waits until the guest
//! has been roomy for a while, because memory that is taken too early costs more than memory that is kept too long. Both
//! aim at the same share of available memory, which lies well between the shares at which they begin, so a guest with a
//! steady need is left alone. A guest whose need comes and goes doubles the wait each time it grows soon after a shrink.

mod decision;
#[cfg(test)]
mod tests;

pub use decision::{Decision, Reason};

use rackmem_types::Bytes;

/// Below this share of available memory the guest grows. Linux begins to reclaim in earnest at a few percent; the rest
/// is what a busy program allocates during one interval of the guest's statistics.
const LOW_PERCENT: u64 = 15;

/// Growing and shrinking aim at this share of available memory: far from both ends.
const AIM_PERCENT: u64 = 28;

/// Above this share of available memory the guest is roomy.
const HIGH_PERCENT: u64 = 45;

/// How long a guest has to be roomy before it shrinks for the first time.
const QUIET_MS: u64 = 30_000;

/// The wait before a shrink after needs that came back again and again: long enough that the work does not count.
const QUIET_MS_MAX: u64 = 30 * 60_000;

/// Growth within this many waits after a shrink says that the shrink came too early.
const REGRET_WAITS: u64 = 4;

/// After a change the guest gets this long to take it before it is judged again.
const SETTLE_MS: u64 = 2_000;

/// Below this share the guest may already want more than its numbers can tell.
const DIRE_PERCENT: u64 = 5;

/// A guest in dire need, or one that swaps or thrashes, grows by this share at least: its numbers say too little.
const DIRE_GROWTH_PERCENT: u64 = 50;

/// Major faults a second that mean that a guest reads its programs again and again: a cold start makes a burst of this
/// size for one sample, thrashing makes many times that for as long as it lasts.
const THRASHING_FAULTS: u64 = 200;

/// A shrink that frees less than this part of the guest is not worth the guest's work.
const SHRINK_PART_MIN: u64 = 16;

/// Sizes are whole blocks of this size, which all devices can do.
const UNIT: Bytes = Bytes(16 << 20);

/// The sizes between which a VM moves by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Never less.
    pub min: Bytes,
    /// Never more.
    pub max: Bytes,
}

/// What is known of a guest at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When, in milliseconds of any steady clock.
    pub at_ms: u64,
    /// What it has.
    pub size: Bytes,
    /// What it could give to programs without swapping: free memory and caches.
    pub available: Bytes,
    /// Pages it has read from swap since it booted, in bytes.
    pub swapped_in: Bytes,
    /// Faults that had to read from disk since it booted.
    pub major_faults: u64,
}

/// The policy for one VM.
#[derive(Clone, Debug)]
pub struct Policy {
    bounds: Bounds,
    last: Option<Sample>,
    /// Since when the guest has been roomy.
    roomy_since_ms: Option<u64>,
    /// The last change that was decided.
    change: Option<Change>,
    last_shrink_ms: Option<u64>,
    /// How long it has to be roomy before the next shrink.
    quiet_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    at_ms: u64,
    to: Bytes,
    is_shrink: bool,
}

impl Policy {
    /// A policy that has seen nothing yet.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            last: None,
            roomy_since_ms: None,
            change: None,
            last_shrink_ms: None,
            quiet_ms: QUIET_MS,
        }
    }

    /// Looks at a new sample.
    pub fn decide(&mut self, sample: Sample) -> Decision {
        let last = self.last.replace(sample);
        if let Some(decision) = self.back_into_bounds(&sample) {
            return decision;
        }
        if let Some(change) = self.change
            && sample.at_ms < change.at_ms + SETTLE_MS
        {
            return Decision::Hold(Reason::Settling);
        }
        self.learn_from_refusal(&sample);
        let pressure = last.and_then(|last| pressure(&last, &sample));
        let percent = percent(sample.available, sample.size);
        if let Some(reason) = pressure.or((percent < LOW_PERCENT).then_some(Reason::Low { percent })) {
            self.roomy_since_ms = None;
            return self.grow(&sample, reason);
        }
        if percent > HIGH_PERCENT {
            return self.shrink(&sample, percent);
        }
        self.roomy_since_ms = None;
        Decision::Hold(Reason::Comfortable { percent })
    }

    fn back_into_bounds(&mut self, sample: &Sample) -> Option<Decision> {
        let to = sample.size.clamp(self.bounds.min, self.bounds.max);
        let was_tried = self.change.is_some_and(|change| sample.at_ms < change.at_ms + self.quiet_ms);
        if to > sample.size {
            return Some(self.changed(sample, to, false, Reason::Bounds));
        }
        (to < sample.size && !was_tried).then(|| self.changed(sample, to, true, Reason::Bounds))
    }

    fn grow(&mut self, sample: &Sample, reason: Reason) -> Decision {
        if let Some(shrunk) = self.last_shrink_ms.take()
            && sample.at_ms < shrunk + REGRET_WAITS * self.quiet_ms
        {
            self.quiet_ms = (self.quiet_ms * 2).min(QUIET_MS_MAX);
        }
        let least = sample.size.0 * (100 + DIRE_GROWTH_PERCENT) / 100;
        let is_dire = !matches!(reason, Reason::Low { percent } if percent >= DIRE_PERCENT);
        let wanted = if is_dire { comfortable(sample).max(least) } else { comfortable(sample) };
        // Twice the size at once: whoever needs more says so at the next sample.
        let to = round_up(wanted).min(round_up(sample.size.0 * 2)).min(self.bounds.max.0);
        if to <= sample.size.0 {
            return Decision::Hold(Reason::AtMaximum);
        }
        self.changed(sample, Bytes(to), false, reason)
    }

    fn shrink(&mut self, sample: &Sample, percent: u64) -> Decision {
        let since = *self.roomy_since_ms.get_or_insert(sample.at_ms);
        let left_ms = (since + self.quiet_ms).saturating_sub(sample.at_ms);
        if left_ms > 0 {
            return Decision::Hold(Reason::Waiting { percent, left_ms });
        }
        let to = Bytes(round_up(comfortable(sample)).max(self.bounds.min.0));
        if to.0 + sample.size.0 / SHRINK_PART_MIN > sample.size.0 {
            return Decision::Hold(Reason::AtMinimum);
        }
        self.roomy_since_ms = None;
        self.last_shrink_ms = Some(sample.at_ms);
        self.changed(sample, to, true, Reason::Roomy { percent })
    }

    fn changed(&mut self, sample: &Sample, to: Bytes, is_shrink: bool, reason: Reason) -> Decision {
        self.change = Some(Change { at_ms: sample.at_ms, to, is_shrink });
        if is_shrink { Decision::Shrink { to, reason } } else { Decision::Grow { to, reason } }
    }

    /// A guest that gave less than it was asked for is asked less often.
    fn learn_from_refusal(&mut self, sample: &Sample) {
        if let Some(change) = self.change
            && change.is_shrink
            && sample.size.0 > change.to.0 + UNIT.0
        {
            self.quiet_ms = (self.quiet_ms * 2).min(QUIET_MS_MAX);
            self.change = Some(Change { is_shrink: false, ..change });
        }
    }
}

/// What the counters of two samples say, whatever seems to be available.
fn pressure(last: &Sample, sample: &Sample) -> Option<Reason> {
    let millis = sample.at_ms.saturating_sub(last.at_ms).max(1);
    let swapped = sample.swapped_in.0.saturating_sub(last.swapped_in.0);
    let faults = sample.major_faults.saturating_sub(last.major_faults).saturating_mul(1000) / millis;
    if swapped > 0 && percent(sample.available, sample.size) < HIGH_PERCENT {
        return Some(Reason::Swapping { bytes: Bytes(swapped) });
    }
    let is_short = percent(sample.available, sample.size) < AIM_PERCENT;
    (faults > THRASHING_FAULTS && is_short).then_some(Reason::Thrashing { faults })
}

/// The size at which what the guest uses leaves the share that is aimed at.
fn comfortable(sample: &Sample) -> u64 {
    sample.size.0.saturating_sub(sample.available.0) * 100 / (100 - AIM_PERCENT)
}

fn percent(part: Bytes, of: Bytes) -> u64 {
    (u128::from(part.0) * 100 / u128::from(of.0.max(1))) as u64
}

fn round_up(amount: u64) -> u64 {
    amount.next_multiple_of(UNIT.0)
}
