//! S3-FIFO against the naive model of a resident set: whatever the order, pages are neither lost nor invented.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rackmem_policy::{Admission, Eviction, PageRef, S3Fifo};

#[derive(Clone, Debug)]
enum Operation {
    Admit(u32, Admission),
    Forget(u32),
    Victims(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    let page = prop_oneof![4 => 0u32..64, 2 => 0u32..2000, 1 => 1_000_000u32..1_000_064];
    let how = prop::sample::select(vec![
        Admission::FirstTouch,
        Admission::Fetched,
        Admission::Prefetched,
        Admission::Reclaimed,
        Admission::Found,
    ]);
    prop_oneof![
        6 => (page.clone(), how).prop_map(|(page, how)| Operation::Admit(page, how)),
        3 => page.prop_map(Operation::Forget),
        2 => (0usize..24).prop_map(Operation::Victims),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_resident_page_comes_out_once_and_no_other(operations in prop::collection::vec(operation(), 0..3000)) {
        let mut policy = S3Fifo::new();
        let mut resident = BTreeSet::new();
        for operation in operations {
            match operation {
                Operation::Admit(page, how) => {
                    policy.admit(PageRef(page), how);
                    resident.insert(page);
                }
                Operation::Forget(page) => {
                    policy.forget(PageRef(page));
                    resident.remove(&page);
                }
                Operation::Victims(count) => {
                    let mut victims = Vec::with_capacity(count);
                    policy.victims(count, &mut victims);
                    prop_assert_eq!(victims.len(), count.min(resident.len()));
                    for victim in victims {
                        prop_assert!(resident.remove(&victim.0), "{:?} was not resident", victim);
                    }
                }
            }
            prop_assert_eq!(policy.resident(), resident.len());
        }
        let mut victims = Vec::new();
        policy.victims(usize::MAX, &mut victims);
        let left: BTreeSet<_> = victims.iter().map(|page| page.0).collect();
        prop_assert_eq!(left.len(), victims.len(), "a page came out twice");
        prop_assert_eq!(left, resident);
    }
}

#[test]
fn untouched_newcomers_leave_in_the_order_of_their_arrival() {
    let mut policy = S3Fifo::new();
    (0..1000).for_each(|page| policy.admit(PageRef(page), Admission::FirstTouch));
    let mut victims = Vec::new();
    policy.victims(1000, &mut victims);
    assert_eq!(victims, (0..1000).map(PageRef).collect::<Vec<_>>());
}

#[test]
fn a_page_that_proved_useful_outlives_a_scan() {
    let mut policy = S3Fifo::new();
    let mut victims = Vec::new();
    (0..1000).for_each(|page| policy.admit(PageRef(page), Admission::FirstTouch));
    policy.victims(100, &mut victims);
    (0..100).for_each(|page| policy.admit(PageRef(page), Admission::Reclaimed));
    for page in 1000..5000 {
        policy.admit(PageRef(page), Admission::FirstTouch);
        victims.clear();
        policy.victims(1, &mut victims);
        assert!(victims[0].0 >= 100, "{:?} left for the scan", victims[0]);
    }
}
