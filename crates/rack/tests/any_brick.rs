//! Where a virtual machine goes that names no brick: on small racks the choice is held against looking at every brick by itself. A
//! machine is refused only if each brick, named, refuses it; and it goes to the fullest of those that would have it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use proptest::prelude::*;
use rackmem_rack::{LatencyClass, Power, Rack, RackError, Request, ReservationId, Role, SwitchKind, planner};
use rackmem_types::Bytes;
use support::{GIB, Layout, end, establish};

#[derive(Clone, Debug)]
enum Action {
    Make { cores: u32, local: u64, memory: u64, class: LatencyClass },
    End(usize),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let class = prop::sample::select(vec![
        LatencyClass::Local,
        LatencyClass::Tray,
        LatencyClass::Rack,
        LatencyClass::Interrack,
    ]);
    let make = (1u32..12, 1u64..20, 1u64..12, class).prop_map(|(cores, local, memory, class)| {
        // A machine of the class local has nothing far.
        let memory = if class == LatencyClass::Local { 0 } else { memory };
        Action::Make { cores, local, memory, class }
    });
    prop::collection::vec(prop_oneof![4 => make, 1 => any::<usize>().prop_map(Action::End)], 1..24)
}

fn layouts() -> impl Strategy<Value = Layout> {
    let kind = prop::sample::select(vec![SwitchKind::Packet, SwitchKind::Circuit]);
    (1usize..3, 1usize..3, 1usize..4, 1usize..3, 1u16..3, kind).prop_map(
        |(racks, trays, compute, memory, ports, kind)| Layout {
            racks,
            trays,
            compute,
            memory,
            accelerators: 0,
            cores: 16,
            size: vec![Bytes(16 * GIB), Bytes(8 * GIB)],
            compute_ports: ports,
            memory_ports: ports,
            trunks: 2,
            kind,
            power: Power::On,
        },
    )
}

/// What each compute brick says to the request when it is named: its free cores if it would have it.
fn each(rack: &Rack, request: &Request) -> Vec<Result<u64, RackError>> {
    let compute = rack.bricks().filter(|brick| brick.role() == Role::Compute);
    let named = |brick: &rackmem_rack::Brick| {
        let request = Request { compute: Some(brick.name().clone()), ..request.clone() };
        planner::reserve(rack, ReservationId(1 << 40), &request).map(|_| brick.free())
    };
    compute.map(named).collect()
}

proptest! {
    #[test]
    fn the_fullest_brick_that_would_have_a_machine_gets_it(layout in layouts(), actions in actions()) {
        let mut rack = layout.build();
        let mut lives = Vec::new();
        for (id, action) in (1..).zip(actions) {
            match action {
                Action::End(which) if !lives.is_empty() => end(&mut rack, lives.swap_remove(which % lives.len())),
                Action::End(_) => {}
                Action::Make { cores, local, memory, class } => {
                    let far = Request::memory("p", None, Bytes(memory * GIB), class);
                    let request = Request { cores, local: Bytes(local * GIB), ..far };
                    let named = each(&rack, &request);
                    let fullest = named.iter().flatten().min().copied();
                    match planner::reserve(&rack, ReservationId(id), &request) {
                        Err(error) => prop_assert_eq!(fullest, None, "{} although: {:?}", error, named),
                        Ok(plan) => {
                            let brick = rack.brick(&plan.grant().compute).unwrap();
                            prop_assert_eq!(Some(brick.free()), fullest, "{:?}", named);
                            prop_assert!(brick.free() >= u64::from(cores));
                            prop_assert!(brick.local_free() >= request.local);
                            let pages: u64 = plan.grant().segments.iter().map(|segment| segment.pages).sum();
                            prop_assert_eq!(Bytes::from_pages(pages), request.memory);
                            prop_assert!(plan.grant().circuits.iter().all(|(_, path)| path.class <= class));
                            establish(&mut rack, id, &request).unwrap();
                            lives.push(id);
                        }
                    }
                    prop_assert_eq!(rack.audit(), Vec::<String>::new());
                }
            }
        }
    }
}
