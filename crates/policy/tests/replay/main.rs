//! S3-FIFO is judged on generated traces, side by side with FIFO, through the pager's standby list.

mod traces;

use std::collections::VecDeque;

use rackmem_policy::{Admission, Eviction, PageRef, S3Fifo, replay};

/// The peer: first come, first gone.
#[derive(Default)]
struct Fifo(VecDeque<PageRef>);

impl Eviction for Fifo {
    fn admit(&mut self, page: PageRef, _: Admission) {
        self.0.push_back(page);
    }

    fn forget(&mut self, page: PageRef) {
        self.0.retain(|other| *other != page);
    }

    fn victims(&mut self, count: usize, out: &mut Vec<PageRef>) {
        out.extend(self.0.drain(..count.min(self.0.len())));
    }

    fn resident(&self) -> usize {
        self.0.len()
    }
}

const PAGES: u32 = 1 << 14;

/// The standby list is a sixteenth of the local limit.
const STANDBY_SHARE: usize = 16;

/// Miss ratio of S3-FIFO relative to FIFO with `percent` of `pages` local.
fn ratio(name: &str, trace: &[PageRef], pages: u32, percent: usize) -> f64 {
    let limit = pages as usize * percent / 100;
    let run = |policy: &mut dyn Eviction| {
        replay(trace.iter().copied(), limit, limit / STANDBY_SHARE, policy).miss_ratio()
    };
    let (fifo, s3fifo) = (run(&mut Fifo::default()), run(&mut S3Fifo::new()));
    println!("{name:>16} {percent:>3} % local: FIFO {fifo:.4} S3-FIFO {s3fifo:.4}");
    if fifo == 0.0 && s3fifo == 0.0 { 1.0 } else { s3fifo / fifo }
}

#[test]
fn never_much_worse_than_fifo() {
    let named = [
        ("zipf 0.7", traces::zipf(PAGES, 600_000, 0.7, 1)),
        ("zipf 0.99", traces::zipf(PAGES, 600_000, 0.99, 2)),
        ("zipf 1.2", traces::zipf(PAGES, 600_000, 1.2, 3)),
        ("zipf and scans", traces::zipf_with_scans(PAGES / 2, 600_000, 4)),
        ("loop", traces::cycle(PAGES, 20)),
        ("two loops", traces::two_loops(PAGES, 30)),
        ("merge sort", traces::merge_sort(PAGES, 5)),
        ("uniform", traces::uniform(PAGES, 600_000, 6)),
    ];
    for (name, trace) in &named {
        for percent in [10, 25, 50, 75, 90, 95] {
            let ratio = ratio(name, trace, PAGES, percent);
            assert!(ratio <= 1.05, "{name}, {percent} % local: {ratio:.3} times the misses of FIFO");
        }
    }
}

#[test]
fn clearly_better_on_skewed_use() {
    for (skew, percent, at_most) in [(0.99, 10, 0.9), (0.99, 25, 0.9), (1.2, 10, 0.9), (1.2, 25, 0.9)] {
        let ratio = ratio("zipf", &traces::zipf(PAGES, 600_000, skew, 7), PAGES, percent);
        assert!(ratio <= at_most, "skew {skew}, {percent} % local: {ratio:.3} times the misses of FIFO");
    }
}

#[test]
fn keeps_part_of_a_loop_that_does_not_fit() {
    for (percent, at_most) in [(90, 0.25), (75, 0.4), (60, 0.6)] {
        let ratio = ratio("loop", &traces::cycle(PAGES, 20), PAGES, percent);
        assert!(ratio <= at_most, "{percent} % local: {ratio:.3} times the misses of FIFO");
    }
}

#[test]
fn the_same_trace_gives_the_same_victims() {
    let trace = traces::zipf_with_scans(PAGES, 200_000, 8);
    let run = || replay(trace.iter().copied(), 4000, 250, &mut S3Fifo::new());
    assert_eq!(run(), run());
}
