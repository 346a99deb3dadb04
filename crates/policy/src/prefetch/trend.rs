//! The majority trend of a thread's last faults, as in Leap (Al Maruf and Chowdhury, ATC 2020): finds strides of any
//! size among noise. It keeps deltas only, not streams.

/// Deltas that are kept.
const DELTAS: usize = 32;

/// The shortest stretch of deltas that is searched for a majority; it doubles up to `DELTAS`.
const STRETCH_MIN: usize = 8;

#[derive(Clone, Debug, Default)]
pub(super) struct Trend {
    last: u64,
    deltas: [i64; DELTAS],
    seen: usize,
}

impl Trend {
    /// Adds the delta to `page`.
    pub(super) fn record(&mut self, page: u64) {
        self.deltas[self.seen % DELTAS] = page.wrapping_sub(self.last).cast_signed();
        self.seen += 1;
        self.last = page;
    }

    /// The delta that more than half of the latest 8, 16 or 32 deltas agree on, that the newest delta has too, and that
    /// occurs more often than `confirmations`.
    pub(super) fn majority(&self, confirmations: u32) -> Option<i64> {
        let newest = self.delta(0);
        // Random faults end here: within a majority, equal deltas lie close together.
        if newest == 0 || !(1..4).any(|ago| self.delta(ago) == newest) {
            return None;
        }
        let kept = self.seen.min(DELTAS);
        let mut stretch = STRETCH_MIN;
        while stretch <= kept {
            if let Some((delta, count)) = self.vote(stretch)
                && delta == newest
                && count > confirmations
            {
                return Some(delta);
            }
            stretch *= 2;
        }
        None
    }

    /// Boyer and Moore's vote over the latest `stretch` deltas: the majority, if there is one, and how often it occurs.
    fn vote(&self, stretch: usize) -> Option<(i64, u32)> {
        let (mut candidate, mut lead) = (0, 0);
        for ago in 0..stretch {
            let delta = self.delta(ago);
            if lead == 0 {
                candidate = delta;
            }
            lead += if delta == candidate { 1 } else { -1 };
        }
        let count = (0..stretch).filter(|ago| self.delta(*ago) == candidate).count();
        (count * 2 > stretch).then_some((candidate, count as u32))
    }

    /// The delta recorded `ago` faults before the newest.
    fn delta(&self, ago: usize) -> i64 {
        self.deltas[self.seen.wrapping_sub(1 + ago) % DELTAS]
    }
}
