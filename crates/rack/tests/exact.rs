//! The planner against an exact solver on small racks: how much memory draws power.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use proptest::prelude::*;
use rackmem_rack::{LatencyClass, Power, Rack, Request, ReservationId, Role, planner};
use rackmem_types::Bytes;
use support::exact::cheapest;
use support::{Layout, end, establish, name, powered};

/// The memory bricks within `class` of c0, as the solver wants them. One rack: tray and rack are the classes there are.
fn offers(rack: &Rack, class: LatencyClass) -> Vec<(u64, u64)> {
    let tray = rack.brick(&name("c0")).unwrap().spec().tray.clone();
    let memory = rack.bricks().filter(|brick| brick.role() == Role::Memory && brick.free() > 0);
    let near = memory.filter(|brick| class > LatencyClass::Tray || brick.spec().tray == tray);
    near.map(|brick| (brick.free(), if brick.power() == Power::Off { brick.capacity() } else { 0 })).collect()
}

fn layout(trays: usize, memory: usize, sizes: &[u64]) -> Layout {
    let size = sizes.iter().map(|pages| Bytes::from_pages(*pages)).collect();
    Layout { trays, size, power: Power::Off, ..Layout::tray(1, memory, Bytes(0)) }
}

#[derive(Clone, Debug)]
struct Step {
    pages: u64,
    class: LatencyClass,
    spread: u8,
    release: Option<usize>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let class = prop::sample::select(vec![LatencyClass::Tray, LatencyClass::Rack]);
    let step = (1u64..90, class, 1u8..5, prop::option::weighted(0.3, 0usize..20));
    prop::collection::vec(
        step.prop_map(|(pages, class, spread, release)| Step { pages, class, spread, release }),
        1..30,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Each decision, taken in whatever state: bricks of one size, requests and releases of all kinds. The solver knows what the
    /// planner knows; the planner wakes exactly as much, and refuses exactly what cannot be done.
    #[test]
    fn each_decision_wakes_the_least_that_will_do(steps in steps(), trays in 1usize..4) {
        let mut rack = layout(trays, 4, &[40]).build();
        let mut live = Vec::new();
        for (id, step) in (1..).zip(steps) {
            if let Some(which) = step.release.filter(|_| !live.is_empty()) {
                end(&mut rack, live.swap_remove(which % live.len()));
            }
            let memory = Request::memory("p", Some(name("c0")), Bytes::from_pages(step.pages), step.class);
            let request = Request { spread: step.spread, ..memory };
            let exact = cheapest(&mut offers(&rack, step.class), step.pages, step.spread.into());
            let (before, _) = powered(&rack);
            let planned = establish(&mut rack, id, &request);
            let woken = planned.as_ref().ok().map(|_| powered(&rack).0 - before);
            prop_assert_eq!(woken, exact, "{:?}", step);
            if planned.is_ok() {
                live.push(id);
            }
        }
    }

    /// All decisions together, bricks of one size that arrive one after the other: no packing whatever needs less power.
    #[test]
    fn arrivals_never_take_more_than_three_points_above_the_optimum(pages in prop::collection::vec(1u64..60, 1..12), memory in 2usize..13) {
        let mut rack = layout(1, memory, &[40]).build();
        let mut sum = 0;
        for (id, pages) in (1..).zip(pages) {
            let request = Request::memory("p", Some(name("c0")), Bytes::from_pages(pages), LatencyClass::Tray);
            if establish(&mut rack, id, &request).is_ok() {
                sum += pages;
            }
        }
        let (on, all) = powered(&rack);
        let optimum = cheapest(&mut vec![(40, 40); memory], sum, memory).unwrap();
        let points = 100.0 * (on - optimum) as f64 / all as f64;
        prop_assert!(points <= 3.0, "{} of {} pages are on, the optimum is {}", on, all, optimum);
    }

    /// With bricks of several sizes a decision may wake more than the least: how much more is bounded, and a refusal is still exact.
    #[test]
    fn with_bricks_of_several_sizes_a_refusal_is_exact(pages in 1u64..200, spread in 1u8..6, sizes in prop::collection::vec(8u64..64, 1..6)) {
        let rack = layout(1, 8, &sizes).build();
        let memory = Request::memory("p", Some(name("c0")), Bytes::from_pages(pages), LatencyClass::Tray);
        let exact = cheapest(&mut offers(&rack, LatencyClass::Tray), pages, spread.into());
        let planned = planner::reserve(&rack, ReservationId(1), &Request { spread, ..memory });
        prop_assert_eq!(planned.is_ok(), exact.is_some());
    }
}
