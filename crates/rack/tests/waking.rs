//! Powered bricks do not stand in the way of one that would have to be woken.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use rackmem_rack::{Event, LatencyClass, Rack, Request, ReservationId, SwitchKind, planner};
use rackmem_types::Bytes;
use support::{Layout, name};

/// One brick of 32 pages that sleeps and one of 16 that does not; the compute brick has so many ports.
fn rack(compute_ports: u16) -> Rack {
    let mut rack = Layout {
        kind: SwitchKind::Circuit,
        size: vec![Bytes::from_pages(32), Bytes::from_pages(16)],
        compute_ports,
        ..Layout::tray(1, 2, Bytes(0))
    }
    .build();
    rack.apply(&Event::PowerSeen { brick: name("m0"), on: false }).unwrap();
    rack
}

/// Pages on bricks.
type Parts = Vec<(String, u64)>;

/// Where memory of so many pages would lie, and which bricks would be woken for it.
fn placed(rack: &Rack, pages: u64) -> Option<(Parts, Vec<String>)> {
    let request = Request {
        spread: 2,
        ..Request::memory("p", Some(name("c0")), Bytes::from_pages(pages), LatencyClass::Tray)
    };
    let plan = planner::reserve(rack, ReservationId(1), &request).ok()?;
    let segments = plan.grant().segments.iter().map(|segment| (segment.brick.to_string(), segment.pages));
    Some((segments.collect(), plan.grant().wake.iter().map(ToString::to_string).collect()))
}

#[test]
fn what_is_free_on_powered_bricks_is_used_up_beside_it() {
    let parts = vec![("m1".to_owned(), 16), ("m0".to_owned(), 11)];
    assert_eq!(placed(&rack(2), 27), Some((parts, vec!["m0".to_owned()])));
}

#[test]
fn the_only_port_goes_to_the_brick_that_has_to_be_woken() {
    assert_eq!(placed(&rack(1), 27), Some((vec![("m0".to_owned(), 27)], vec!["m0".to_owned()])));
    assert_eq!(placed(&rack(1), 33), None, "no brick has so much, and two cannot be reached");
}
