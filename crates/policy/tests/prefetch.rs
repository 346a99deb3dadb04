//! The prefetcher on the access patterns it is made for, and on those that must not fool it.

use std::collections::HashSet;

use proptest::prelude::*;
use rackmem_policy::{Prefetcher, WINDOW_PAGES_MAX};

/// A far memory that keeps what was read ahead: a fault happens only on a page that was not.
#[derive(Default)]
struct Program {
    prefetcher: Prefetcher,
    near: HashSet<u64>,
    faults: u64,
}

impl Program {
    fn touch(&mut self, thread: u32, page: u64) {
        if self.near.remove(&page) {
            return;
        }
        self.faults += 1;
        if let Some(window) = self.prefetcher.fault(thread, page) {
            self.near.extend(window.pages());
        }
    }

    /// Share of the issued pages that the program never touched.
    fn wasted(&self) -> f64 {
        self.near.len() as f64 / self.prefetcher.issued().max(1) as f64
    }

    #[track_caller]
    fn assert_followed(&self, touches: u64, streams: u64) {
        let most = touches / u64::from(WINDOW_PAGES_MAX) + 12 * streams;
        assert!(self.faults <= most, "{} faults of {touches} touches, expected {most} at most", self.faults);
        assert!(
            self.near.len() as u64 <= streams * u64::from(WINDOW_PAGES_MAX),
            "{} left over",
            self.near.len()
        );
        assert!(self.prefetcher.hits() * 10 >= touches * 9 - 10 * streams * u64::from(WINDOW_PAGES_MAX));
    }
}

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn strides_in_both_directions_are_followed() {
    for stride in [1, -1, 3, -3, 64, 100, -1000, 1 << 20] {
        let mut program = Program::default();
        for i in 0..20_000 {
            program.touch(7, (1_u64 << 40).wrapping_add_signed(i * stride));
        }
        program.assert_followed(20_000, 1);
    }
}

#[test]
fn two_threads_do_not_disturb_each_other() {
    let mut program = Program::default();
    for i in 0..10_000 {
        program.touch(1, 1 << 30 | i);
        program.touch(2, (1 << 31) - 2 * i);
    }
    program.assert_followed(20_000, 2);
}

#[test]
fn one_thread_may_alternate_between_streams() {
    let mut program = Program::default();
    for i in 0..10_000 {
        program.touch(1, 1 << 30 | i);
        program.touch(1, 1 << 31 | i);
        program.touch(1, 1 << 32 | i);
    }
    program.assert_followed(30_000, 3);
}

#[test]
fn a_trend_is_found_among_noise() {
    let mut program = Program::default();
    let mut state = 1;
    for i in 0..20_000 {
        program.touch(1, (1 << 40) + i * 500);
        if i % 5 == 0 {
            program.touch(1, random(&mut state));
        }
    }
    // Each of the 4,000 noisy touches faults; of the stream hardly any does.
    assert!(program.faults < 4_000 + 20_000 / 20, "{} faults", program.faults);
    assert!(program.wasted() < 0.05, "{} wasted", program.wasted());
}

#[test]
fn random_faults_read_nothing_ahead() {
    for pages in [1 << 12, 1 << 16, 1 << 24] {
        let (mut prefetcher, mut state) = (Prefetcher::new(), 42);
        for _ in 0..100_000 {
            prefetcher.fault(1, random(&mut state) % pages);
        }
        assert!(
            prefetcher.issued() < 1_000,
            "{} pages read ahead of 100000 random faults",
            prefetcher.issued()
        );
    }
}

#[test]
fn short_runs_turn_the_prefetcher_off() {
    // Runs of four pages look sequential and never are: a naive prefetcher would waste eight pages on each.
    let (mut prefetcher, mut state) = (Prefetcher::new(), 42);
    for _ in 0..25_000 {
        let start = random(&mut state) << 4;
        (start..start + 4).for_each(|page| {
            prefetcher.fault(1, page);
        });
    }
    assert!(prefetcher.issued() < 1_000, "{} pages read ahead of 100000 faults", prefetcher.issued());
}

#[test]
fn a_window_that_is_on_its_way_is_not_asked_for_again() {
    let mut prefetcher = Prefetcher::new();
    let windows: Vec<_> = (0..40).filter_map(|page| prefetcher.fault(1, page)).collect();
    for pair in windows.windows(2) {
        assert!(pair[1].first > pair[0].first + u64::from(pair[0].count) - 1, "{pair:?}");
    }
    assert!(windows.len() >= 2);
}

#[test]
fn what_was_cut_off_a_window_is_read_with_the_next() {
    let mut program = Program::default();
    let mut asked = Vec::new();
    for page in 0..20_000 {
        if program.near.remove(&page) {
            continue;
        }
        program.faults += 1;
        if let Some(window) = program.prefetcher.fault(1, page) {
            // There is room for a third of it.
            let read = window.count / 3;
            program.prefetcher.cut(1, window.count - read);
            asked.extend(window.pages().take(read as usize));
            program.near.extend(window.pages().take(read as usize));
        }
    }
    assert!(program.faults < 20_000 / 42 + 50, "{} faults", program.faults);
    assert!(asked.is_sorted_by(|a, b| a < b), "a page was asked for twice");
    assert_eq!(program.prefetcher.issued(), asked.len() as u64);
    assert!(program.prefetcher.hits() * 10 > program.prefetcher.issued() * 9);
}

#[test]
fn a_thread_that_waits_within_its_window_is_read_ahead_of_further() {
    let mut prefetcher = Prefetcher::new();
    let mut asked = Vec::new();
    // Of each sixteen pages the first is not there yet when the thread comes.
    for page in (0..3).chain((3..).step_by(16).take(400)) {
        asked.extend(prefetcher.fault(1, page).into_iter().flat_map(|window| window.pages()));
        assert!(asked.len() as u64 <= page + 2 * u64::from(WINDOW_PAGES_MAX), "too far ahead at {page}");
        if page > 1000 {
            assert!(asked.last().is_some_and(|&last| last > page + 16), "nothing ahead at {page}");
        }
    }
    assert!(asked.is_sorted_by(|a, b| a < b), "a page was asked for twice");
}

#[test]
fn more_threads_than_places_take_turns() {
    let mut program = Program::default();
    for round in 0..3u64 {
        for thread in 0..200 {
            let base = u64::from(thread) << 32 | round << 20;
            (0..1000).for_each(|page| program.touch(thread, base + page));
        }
    }
    assert!(program.faults < 3 * 200 * 30, "{} faults", program.faults);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn windows_are_bounded_and_hits_never_exceed_what_was_issued(
        faults in prop::collection::vec((0u32..80, prop_oneof![0u64..200, any::<u64>(), Just(u64::MAX), Just(0)]), 1..2000),
        walk in prop::collection::vec((0u32..3, -4i64..5), 0..500),
    ) {
        let mut prefetcher = Prefetcher::new();
        let mut position = [u64::MAX - 100, 100, 1 << 40];
        let walk = walk.into_iter().map(|(thread, delta)| {
            let at = &mut position[thread as usize];
            *at = at.wrapping_add_signed(delta);
            (thread, *at)
        });
        for (thread, page) in faults.into_iter().chain(walk) {
            if let Some(window) = prefetcher.fault(thread, page) {
                prop_assert!((1..=WINDOW_PAGES_MAX).contains(&window.count));
                prop_assert!(window.stride != 0);
                prop_assert!(window.pages().all(|ahead| ahead != page));
            }
            prop_assert!(prefetcher.hits() <= prefetcher.issued());
        }
    }
}
