//! A plan that left a circuit, and another reservation that has it disconnected meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use rackmem_rack::{
    CircuitState, Event, LatencyClass, Plan, Rack, Request, ReservationId, SwitchKind, planner,
};
use rackmem_types::Bytes;
use support::{Layout, establish, name};

const SHRINKS: ReservationId = ReservationId(1);
const LEAVES: ReservationId = ReservationId(2);

/// Two reservations share a circuit, and the one that set it is giving all of its memory back.
fn shrinking() -> (Rack, Plan) {
    let mut rack = Layout { kind: SwitchKind::Circuit, ..Layout::tray(1, 1, Bytes::from_pages(64)) }.build();
    for id in [SHRINKS, LEAVES] {
        let request = Request::memory("p", Some(name("c0")), Bytes::from_pages(4), LatencyClass::Tray);
        establish(&mut rack, id.0, &request).unwrap();
    }
    assert_eq!(rack.circuits().count(), 1, "they share it");
    let plan = planner::shrink(&rack, SHRINKS, Bytes::from_pages(4)).unwrap();
    rack.apply(&Event::Accepted(Box::new(plan.clone()))).unwrap();
    (rack, plan)
}

#[test]
fn it_is_taken_up_again_while_the_other_still_uses_it() {
    let (mut rack, plan) = shrinking();
    planner::undo(&rack, &plan, 0).unwrap();
    rack.apply(&Event::Undoing(SHRINKS)).unwrap();
    rack.apply(&Event::Undone(SHRINKS)).unwrap();
    assert_eq!(rack.circuits().next().unwrap().users, [SHRINKS, LEAVES]);
    assert_eq!(rack.audit(), Vec::<String>::new());
}

#[test]
fn it_is_not_taken_up_again_once_the_other_has_it_disconnected() {
    let (mut rack, plan) = shrinking();
    let release = planner::release(&rack, LEAVES).unwrap();
    rack.apply(&Event::Accepted(Box::new(release))).unwrap();
    assert_eq!(rack.circuits().next().unwrap().state, CircuitState::Closing { by: LEAVES });
    let refused = |rack: &mut Rack| {
        let before = rack.snapshot();
        let told = planner::undo(rack, &plan, 0).unwrap_err().to_string();
        assert!(told.contains("can only be carried through"), "{told}");
        assert_eq!(rack.apply(&Event::Undoing(SHRINKS)).unwrap_err().to_string(), told);
        assert_eq!(rack.snapshot(), before);
        assert_eq!(rack.audit(), Vec::<String>::new());
    };
    refused(&mut rack);
    rack.apply(&Event::Done(LEAVES)).unwrap();
    assert_eq!(rack.circuits().count(), 0);
    refused(&mut rack);
    rack.apply(&Event::Done(SHRINKS)).unwrap();
    assert_eq!(rack.reservation(SHRINKS).unwrap().pages(), 0);
    assert_eq!(rack.audit(), Vec::<String>::new());
}
