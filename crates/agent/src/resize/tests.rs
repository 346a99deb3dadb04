use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const ROOM: Room = Room { far_free: Some(Bytes(u64::MAX)), host_free: Bytes(0), restart: false };

fn mib(count: u64) -> Bytes {
    Bytes(count * MIB)
}

/// A VM with 512 MiB that can grow to 2 GiB.
fn small() -> MemoryState {
    let hotplug = Hotplug { plugged: mib(0), requested: mib(0), capacity: mib(1536), block: mib(2) };
    MemoryState {
        base: mib(512),
        hotplug: Some(hotplug),
        ballooned: Some(mib(0)),
        guest_used: Some(mib(100)),
    }
}

fn with(plugged: u64, ballooned: u64) -> MemoryState {
    let mut state = small();
    state.ballooned = Some(mib(ballooned));
    state.hotplug =
        state.hotplug.map(|hotplug| Hotplug { plugged: mib(plugged), requested: mib(plugged), ..hotplug });
    state
}

/// What the guest has once it has done all it was asked for.
fn done(state: &MemoryState, plan: &Plan) -> MemoryState {
    let mut state = *state;
    for step in &plan.steps {
        match (*step, &mut state.hotplug) {
            (Step::Deflate { from, to } | Step::Inflate { from, to }, _) => {
                assert_eq!(state.ballooned.replace(to), Some(from));
            }
            (Step::Plug { from, to } | Step::Unplug { from, to }, Some(hotplug)) => {
                assert_eq!(hotplug.plugged, from);
                (hotplug.plugged, hotplug.requested) = (to, to);
            }
            (step, _) => panic!("{step} on {state:?}"),
        }
    }
    state
}

#[test]
fn growth_empties_the_balloon_before_it_plugs() {
    let plan = plan(&with(0, 100), mib(612), ROOM).unwrap();
    assert_eq!(
        plan.steps,
        [Step::Deflate { from: mib(100), to: mib(0) }, Step::Plug { from: mib(0), to: mib(100) }]
    );
}

#[test]
fn shrinking_unplugs_before_it_inflates() {
    let plan = plan(&with(100, 0), mib(400), ROOM).unwrap();
    assert_eq!(
        plan.steps,
        [Step::Unplug { from: mib(100), to: mib(0) }, Step::Inflate { from: mib(0), to: mib(112) }]
    );
}

#[test]
fn the_same_size_takes_no_steps_unless_a_request_is_open() {
    assert_eq!(plan(&with(100, 0), mib(612), ROOM).unwrap().steps, []);
    let mut open = with(100, 0);
    open.hotplug = open.hotplug.map(|hotplug| Hotplug { requested: mib(500), ..hotplug });
    assert_eq!(plan(&open, mib(612), ROOM).unwrap().steps, [Step::Plug { from: mib(100), to: mib(100) }]);
}

#[test]
fn refusals_say_what_can_be_had() {
    let refused = |state: &MemoryState, wanted, room| plan(state, wanted, room).unwrap_err().to_string();
    assert!(refused(&small(), mib(4096), ROOM).contains("grow to 2GiB"));
    assert!(refused(&small(), mib(128), ROOM).contains("uses 100MiB and needs 148MiB"));
    assert!(refused(&small(), mib(1), ROOM).contains("at least 96MiB"));
    let poor = Room { far_free: Some(mib(10)), ..ROOM };
    assert!(refused(&small(), mib(1024), poor).contains("have 10MiB left"));
    let local = Room { far_free: None, host_free: mib(64), restart: false };
    assert!(refused(&small(), mib(1024), local).contains("64MiB are free"));
    let bare = MemoryState { hotplug: None, ballooned: None, ..small() };
    assert_eq!(plan(&bare, mib(400), ROOM), Err(Refusal::NoDevice));
}

#[test]
fn a_restart_is_planned_only_with_consent() {
    let consent = Room { restart: true, ..ROOM };
    let plan = plan(&small(), mib(4096), consent).unwrap();
    assert_eq!(plan.steps, [Step::Restart { memory: mib(4096) }]);
    assert!(plan.steps[0].cost().restarts);
    assert!(
        super::plan(&small(), mib(2048), consent).unwrap().steps.iter().all(|step| !step.cost().restarts)
    );
}

prop_compose! {
    fn states()(
        base in 128u64..2048,
        blocks in 0u64..1024,
        plugged in 0f64..=1.0,
        ballooned in 0f64..=0.7,
        used in prop::option::of(0f64..=1.0),
        devices in 0u8..4,
    ) -> MemoryState {
        let plugged = Bytes((blocks as f64 * plugged) as u64 * 2 * MIB);
        let capacity = mib(blocks * 2);
        let hotplug = (devices & 1 != 0).then_some(Hotplug { plugged, requested: plugged, capacity, block: mib(2) });
        let ballooned = (devices & 2 != 0).then(|| mib((base as f64 * ballooned) as u64));
        let mut state = MemoryState { base: mib(base), hotplug, ballooned, guest_used: None };
        state.guest_used = used.map(|part| Bytes((state.size().0 as f64 * part) as u64));
        state
    }
}

proptest! {
    #[test]
    fn a_plan_leads_to_the_size_and_is_not_repeated(state in states(), wanted in 1u64..6000) {
        let wanted = mib(wanted);
        if let Ok(plan) = plan(&state, wanted, ROOM) {
            let after = done(&state, &plan);
            prop_assert_eq!(after.size(), plan.to);
            // No less than asked for, and no more than the devices' granularity above it.
            prop_assert!(plan.to >= wanted || plan.to == state.maximum());
            if state.hotplug.is_some() && state.ballooned.is_some() {
                prop_assert!(plan.to.0 - wanted.0 < 2 * MIB, "{plan:?}");
            }
            let again = super::plan(&MemoryState { guest_used: None, ..after }, plan.to, ROOM).unwrap();
            prop_assert_eq!(again.steps, []);
        }
    }

    #[test]
    fn a_shrink_never_goes_below_use(state in states(), wanted in 1u64..6000) {
        if let (Ok(plan), Some(used)) = (plan(&state, mib(wanted), ROOM), state.guest_used)
            && plan.to < plan.from
        {
            prop_assert!(plan.to.0 >= used.0 + GUEST_RESERVE.0);
        }
    }

    #[test]
    fn growth_is_never_more_than_there_is_room(state in states(), wanted in 1u64..6000, free in 0u64..4000) {
        let room = Room { far_free: Some(mib(free)), ..ROOM };
        if let Ok(plan) = plan(&state, mib(wanted), room) {
            prop_assert!(plan.to.0.saturating_sub(plan.from.0) <= mib(free).0);
        }
    }
}
