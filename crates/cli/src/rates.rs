//! What two samples of a target's counters mean: rates and shares.

use rackmem_control::TargetStats;
use rackmem_types::PAGE_SIZE;
use serde::Serialize;

/// Rates between two samples, and shares since the attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Rates {
    pub(crate) faults_per_s: f64,
    pub(crate) fetched_mib_per_s: f64,
    pub(crate) evicted_mib_per_s: f64,
    pub(crate) prefetched_mib_per_s: f64,
    /// Prefetched pages that were needed, of all prefetched; `None` before the first.
    pub(crate) prefetch_hit_share: Option<f64>,
    /// Pages that left without being sent because the server had them or they were zero, of all that left.
    pub(crate) unsent_share: Option<f64>,
    /// Time spent waiting for pages, of the time that passed; above 1 where several threads wait.
    pub(crate) stall_share: f64,
}

impl Rates {
    /// From an earlier and a later sample of the same target.
    pub(crate) fn between(before: &TargetStats, after: &TargetStats) -> Self {
        let seconds = after.uptime_us.saturating_sub(before.uptime_us) as f64 / 1e6;
        let rate = |counter: fn(&TargetStats) -> u64| {
            // Counters only grow; a smaller one is of another attach, and has no rate.
            let growth = counter(after).saturating_sub(counter(before)) as f64;
            if seconds > 0.0 { growth / seconds } else { 0.0 }
        };
        let mib = PAGE_SIZE as f64 / f64::from(1 << 20);
        Self {
            faults_per_s: rate(|stats| stats.faults),
            fetched_mib_per_s: rate(|stats| stats.pages_fetched) * mib,
            evicted_mib_per_s: rate(|stats| stats.pages_evicted) * mib,
            prefetched_mib_per_s: rate(|stats| stats.pages_prefetched) * mib,
            prefetch_hit_share: share(after.prefetch_hits, after.pages_prefetched),
            unsent_share: share(after.pages_unchanged + after.pages_zero, after.pages_evicted),
            stall_share: rate(|stats| stats.stall_us) / 1e6,
        }
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second_of_the_target_s_clock() {
        let before =
            TargetStats { uptime_us: 1_000_000, faults: 100, stall_us: 50_000, ..TargetStats::default() };
        let after = TargetStats {
            uptime_us: 1_250_000,
            faults: 350,
            stall_us: 175_000,
            pages_fetched: 64,
            pages_evicted: 200,
            pages_unchanged: 30,
            pages_zero: 20,
            pages_prefetched: 128,
            prefetch_hits: 96,
            ..TargetStats::default()
        };
        let rates = Rates::between(&before, &after);
        assert_eq!((rates.faults_per_s, rates.stall_share), (1000.0, 0.5));
        assert_eq!((rates.fetched_mib_per_s, rates.prefetched_mib_per_s), (1.0, 2.0));
        assert_eq!((rates.prefetch_hit_share, rates.unsent_share), (Some(0.75), Some(0.25)));
    }

    #[test]
    fn a_new_attach_or_no_time_gives_no_nonsense() {
        let old = TargetStats { uptime_us: 9_000_000, faults: 1000, ..TargetStats::default() };
        let new = TargetStats { uptime_us: 10, faults: 1, ..TargetStats::default() };
        assert_eq!(Rates::between(&old, &new), Rates::default());
        assert_eq!(Rates::between(&new, &new), Rates::default());
    }
}
