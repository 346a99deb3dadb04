//! Whatever happens in whatever order, every invariant holds after every event, and when all is over the rack is as at the start.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use proptest::prelude::*;
use rackmem_rack::{
    AcceleratorNeed, CircuitState, Event, GroupNeed, LatencyClass, Plan, Power, Purpose, Rack, Request,
    ReservationId, SegmentId, Snapshot, State, Step, SwitchKind, Timestamp, planner,
};
use rackmem_types::Bytes;
use support::{Layout, name};

#[derive(Clone, Debug)]
enum Action {
    Reserve {
        compute: Option<u8>,
        pages: u64,
        class: LatencyClass,
        spread: u8,
        cores: u32,
        slots: u32,
        expires: bool,
    },
    Init {
        group: u8,
        pages: u64,
    },
    Join {
        group: u8,
        compute: u8,
    },
    Start(u8),
    Done(u8),
    Undo(u8, u8),
    Release(u8),
    Grow(u8, u64),
    Shrink(u8, u64),
    Expire,
    Keep(u8, u64),
    AcceptKept(u8),
    DrainNext(u8),
    ReplaceLost(u8),
    Draining(u8, bool),
    Power(u8, bool),
    Lost(u8),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let class = prop::sample::select(vec![LatencyClass::Tray, LatencyClass::Rack, LatencyClass::Interrack]);
    let slots = prop_oneof![3 => Just(0u32), 1 => 1u32..4];
    let reserve = (prop::option::of(0u8..4), 1u64..40, class, 1u8..4, 0u32..3, slots, any::<bool>())
        .prop_map(|(compute, pages, class, spread, cores, slots, expires)| Action::Reserve {
            compute,
            pages,
            class,
            spread,
            cores,
            slots,
            expires,
        });
    let any_of = prop_oneof![
        6 => reserve,
        1 => (0u8..2, 1u64..20).prop_map(|(group, pages)| Action::Init { group, pages }),
        1 => (0u8..2, 0u8..4).prop_map(|(group, compute)| Action::Join { group, compute }),
        4 => any::<u8>().prop_map(Action::Start),
        6 => any::<u8>().prop_map(Action::Done),
        2 => any::<(u8, u8)>().prop_map(|(which, begun)| Action::Undo(which, begun)),
        3 => any::<u8>().prop_map(Action::Release),
        2 => (any::<u8>(), 1u64..20).prop_map(|(which, pages)| Action::Grow(which, pages)),
        1 => (any::<u8>(), 1u64..40).prop_map(|(which, pages)| Action::Shrink(which, pages)),
        1 => Just(Action::Expire),
        2 => (0u8..4, 1u64..30).prop_map(|(compute, pages)| Action::Keep(compute, pages)),
        2 => any::<u8>().prop_map(Action::AcceptKept),
        1 => (0u8..8).prop_map(Action::DrainNext),
        2 => any::<u8>().prop_map(Action::ReplaceLost),
        1 => (0u8..8, any::<bool>()).prop_map(|(brick, on)| Action::Draining(brick, on)),
        1 => (0u8..8, prop::bool::weighted(0.8)).prop_map(|(brick, on)| Action::Power(brick, on)),
        1 => any::<u8>().prop_map(Action::Lost),
    ];
    prop::collection::vec(any_of, 1..60)
}

/// The rack, the plans under way, and plans that somebody keeps although the world moves on.
struct World {
    rack: Rack,
    next: u64,
    plans: std::collections::BTreeMap<ReservationId, Plan>,
    kept: Vec<Plan>,
}

impl World {
    fn pick(&self, which: u8) -> Option<ReservationId> {
        let ids: Vec<_> = self.rack.reservations().map(|reservation| reservation.id).collect();
        (!ids.is_empty()).then(|| ids[usize::from(which) % ids.len()])
    }

    /// Whether every circuit that the reservation had before its plan is there and nobody else has it disconnected.
    fn has_way_back(&self, id: ReservationId) -> bool {
        let reservation = self.rack.reservation(id).unwrap();
        let Some(pending) = reservation.pending.as_ref().filter(|_| reservation.state == State::Applied)
        else {
            return true;
        };
        let had = reservation.mappings.iter().filter(|mapping| !pending.added.contains(&mapping.segment));
        had.map(|mapping| self.rack.circuit(mapping.circuit)).all(|circuit| {
            circuit.is_some_and(|circuit| !matches!(circuit.state, CircuitState::Closing { by } if by != id))
        })
    }

    fn accept(&mut self, plan: Plan) {
        check_order(&plan);
        assert_eq!(self.rack.overtaken(&plan), Vec::<String>::new());
        let generation = self.rack.generation();
        let effect = self.rack.apply(&Event::Accepted(Box::new(plan.clone()))).unwrap();
        assert!(effect.generation > generation);
        self.plans.insert(plan.reservation(), plan);
    }

    fn request(&mut self, request: &Request) {
        let id = ReservationId(self.next);
        self.next += 1;
        if let Ok(plan) = planner::reserve(&self.rack, id, request) {
            let again = planner::reserve(&self.rack, id, request).unwrap();
            assert_eq!(plan, again, "the same rack and request give the same plan");
            self.check_nearest(id, request, &plan);
            self.accept(plan);
        }
    }

    /// What is farther away is taken only where what is nearer would have to be woken, or more of it.
    fn check_nearest(&self, id: ReservationId, request: &Request, plan: &Plan) {
        let grant = plan.grant();
        let new = grant.circuits.iter().map(|(_, path)| path.class);
        let reused = grant.reused.iter().filter_map(|circuit| self.rack.circuit(*circuit));
        let widest = new.chain(reused.map(|circuit| circuit.path.class)).max();
        if request.compute.is_none() || request.accelerator.is_some() || request.group.is_some() {
            return;
        }
        for class in [LatencyClass::Tray, LatencyClass::Rack] {
            let nearer = Request { class, ..request.clone() };
            if Some(class) < widest
                && let Ok(nearer) = planner::reserve(&self.rack, id, &nearer)
            {
                assert!(nearer.grant().wake.len() > grant.wake.len(), "{class} would have done: {request:?}");
            }
        }
    }

    fn act(&mut self, action: &Action) {
        let page = |pages| Bytes::from_pages(pages);
        match action.clone() {
            Action::Reserve { compute, pages, class, spread, cores, slots, expires } => {
                let compute = compute.map(|index| name(&format!("c{index}")));
                let expires = expires.then_some(Timestamp(5));
                self.request(&Request {
                    cores,
                    spread,
                    expires,
                    accelerator: (slots > 0).then_some(AcceleratorNeed { model: None, slots }),
                    ..Request::memory("p", compute, page(pages), class)
                });
            }
            Action::Init { group, pages } => {
                let need = Some(GroupNeed::Init(name(&format!("g{group}"))));
                self.request(&Request {
                    group: need,
                    ..Request::memory("p", None, page(pages), LatencyClass::Rack)
                });
            }
            Action::Join { group, compute } => {
                let (need, compute) =
                    (Some(GroupNeed::Join(name(&format!("g{group}")))), name(&format!("c{compute}")));
                // Groups are of project p, and q has to be refused.
                let project = if self.rack.reservations().len() % 3 == 2 { "q" } else { "p" };
                self.request(&Request {
                    group: need,
                    ..Request::memory(project, Some(compute), Bytes(0), LatencyClass::Interrack)
                });
            }
            Action::Start(which) => {
                let Some(id) = self.pick(which) else { return };
                let could =
                    matches!(self.rack.reservation(id).unwrap().state, State::Reserved | State::Applying);
                assert_eq!(self.rack.apply(&Event::Started(id)).is_ok(), could);
            }
            Action::Done(which) => {
                let Some(id) = self.pick(which) else { return };
                let _ = self.rack.apply(&Event::Done(id));
            }
            Action::Undo(which, begun) => {
                let Some(id) = self.pick(which) else { return };
                let reservation = self.rack.reservation(id).unwrap();
                let under_way = reservation.state == State::Applying || reservation.pending.is_some();
                let Some(plan) = self.plans.get(&id).filter(|_| under_way) else { return };
                let begun = usize::from(begun) % (plan.undoable_until() + 1);
                let way_back = self.has_way_back(id);
                assert_eq!(planner::undo(&self.rack, plan, begun).is_ok(), way_back);
                let before = self.rack.snapshot();
                let undoing = self.rack.apply(&Event::Undoing(id));
                assert_eq!(undoing.is_ok(), way_back, "{undoing:?}");
                if !way_back {
                    assert_eq!(self.rack.snapshot(), before, "a refused undo changes nothing");
                    return;
                }
                if begun.is_multiple_of(2) {
                    self.rack.apply(&Event::Undone(id)).unwrap();
                }
            }
            Action::Release(which) => {
                let Some(id) = self.pick(which) else { return };
                if let Ok(plan) = planner::release(&self.rack, id) {
                    self.accept(plan);
                }
            }
            Action::Grow(which, pages) => {
                let Some(id) = self.pick(which) else { return };
                if let Ok(plan) = planner::grow(&self.rack, id, page(pages)) {
                    self.accept(plan);
                }
            }
            Action::Shrink(which, pages) => {
                let Some(id) = self.pick(which) else { return };
                if let Ok(plan) = planner::shrink(&self.rack, id, page(pages)) {
                    self.accept(plan);
                }
            }
            Action::Expire => {
                let due: Vec<_> = self.rack.due(Timestamp(5)).collect();
                for id in due {
                    match self.rack.apply(&Event::Expired(id)) {
                        Ok(effect) => assert_eq!(effect.ended.unwrap().state, State::Expired),
                        // It came to be the last user of a circuit, which has to be disconnected first.
                        Err(_) => self.accept(planner::release(&self.rack, id).unwrap()),
                    }
                }
            }
            Action::Keep(compute, pages) => {
                let id = ReservationId(self.next);
                self.next += 1;
                let compute = Some(name(&format!("c{compute}")));
                let request = Request::memory("p", compute, page(pages), LatencyClass::Interrack);
                self.kept.extend(planner::reserve(&self.rack, id, &request));
            }
            Action::AcceptKept(which) => {
                if self.kept.is_empty() {
                    return;
                }
                let plan = self.kept.swap_remove(usize::from(which) % self.kept.len());
                let conflicts = self.rack.overtaken(&plan);
                let before = self.rack.snapshot();
                let accepted = self.rack.apply(&Event::Accepted(Box::new(plan.clone())));
                assert_eq!(accepted.is_ok(), conflicts.is_empty(), "{conflicts:?}");
                if accepted.is_err() {
                    assert_eq!(self.rack.snapshot(), before, "a refused plan changes nothing");
                }
                self.plans.insert(plan.reservation(), plan);
            }
            Action::DrainNext(brick) => {
                if let Ok(Some(plan)) = planner::drain_next(&self.rack, &name(&format!("m{brick}"))) {
                    self.accept(plan);
                }
            }
            Action::ReplaceLost(which) => {
                let Some(id) = self.pick(which) else { return };
                if let Ok(Some(plan)) = planner::replace_lost(&self.rack, id) {
                    let is_lost = |segment: &SegmentId| {
                        let mappings = &self.rack.reservation(id).unwrap().mappings;
                        mappings.iter().any(|mapping| mapping.segment == *segment && mapping.lost)
                    };
                    assert!(plan.removed().iter().all(is_lost), "what is there stays where it is");
                    self.accept(plan);
                }
            }
            Action::Draining(brick, draining) => {
                let brick = name(&format!("m{brick}"));
                self.rack.apply(&Event::Draining { brick, draining }).unwrap();
            }
            Action::Power(brick, on) => {
                let brick = name(&format!("m{brick}"));
                self.rack.apply(&Event::PowerSeen { brick, on }).unwrap();
            }
            Action::Lost(which) => {
                let ids: Vec<_> = self.rack.snapshot().segments.iter().map(|segment| segment.id).collect();
                if !ids.is_empty() {
                    let id = ids[usize::from(which) % ids.len()];
                    self.rack.apply(&Event::SegmentLost(id)).unwrap();
                }
            }
        }
    }

    /// Ends everything that is there.
    fn finish(&mut self) {
        while let Some(id) = self.pick(0) {
            let reservation = self.rack.reservation(id).unwrap();
            match (reservation.state, &reservation.pending) {
                (State::Applying | State::Releasing, _) | (_, Some(_)) => {
                    drop(self.rack.apply(&Event::Done(id)).unwrap())
                }
                _ => {
                    let plan = planner::release(&self.rack, id).unwrap();
                    self.rack.apply(&Event::Accepted(Box::new(plan))).unwrap();
                }
            }
            assert_eq!(self.rack.audit(), Vec::<String>::new());
        }
    }
}

/// Memory, then switches, then the compute brick; the other way round where something ends.
fn check_order(plan: &Plan) {
    let rank = |step: &Step| match step {
        Step::PowerOn { .. } => 0,
        Step::SegmentCreate { .. } => 1,
        Step::Connect { .. } => 2,
        Step::NetPortAdd { .. } | Step::AcceleratorBind { .. } => 3,
        Step::Attach { .. } | Step::Migrate { .. } => 4,
        Step::Detach { .. } => 5,
        Step::NetPortRemove { .. } | Step::AcceleratorUnbind { .. } => 6,
        Step::Disconnect { .. } => 7,
        Step::SegmentRemove { .. } => 8,
        Step::PowerOff { .. } => 9,
    };
    assert!(plan.steps().is_sorted_by_key(rank), "{:?}", plan.steps());
    if let Purpose::Reserve(request) = plan.purpose() {
        let granted: u64 = plan.grant().segments.iter().map(|segment| segment.pages).sum();
        assert_eq!(granted, request.memory.pages());
        let mut bricks: Vec<_> = plan.grant().segments.iter().map(|segment| &segment.brick).collect();
        bricks.sort_unstable();
        bricks.dedup();
        assert!(bricks.len() <= usize::from(request.spread), "spread over {bricks:?}");
        assert!(
            plan.grant().circuits.iter().all(|(_, path)| path.class <= request.class),
            "wider than asked for"
        );
    }
}

/// What must be the same at the end: power may differ, since nothing powers bricks off, and so may what was observed.
fn comparable(rack: &Rack) -> Snapshot {
    let mut snapshot = rack.snapshot();
    snapshot.generation = Default::default();
    for brick in &mut snapshot.bricks {
        (brick.spec.power, brick.waking, brick.draining) = (Power::On, false, false);
    }
    snapshot
}

/// Two racks of two compute and four memory bricks, on which all that is done and ended again.
fn live(kind: SwitchKind, power: Power, actions: Vec<Action>) {
    let layout = Layout {
        racks: 2,
        trays: 1,
        compute: 2,
        memory: 4,
        accelerators: 1,
        cores: 4,
        size: vec![Bytes::from_pages(32), Bytes::from_pages(16)],
        compute_ports: 2,
        memory_ports: 2,
        trunks: 2,
        kind,
        power,
    };
    let rack = layout.build();
    let start = comparable(&rack);
    let mut world = World { rack, next: 1, plans: Default::default(), kept: Vec::new() };
    for action in actions {
        world.act(&action);
        assert_eq!(world.rack.audit(), Vec::<String>::new(), "after {action:?}");
        let snapshot = world.rack.snapshot();
        let json = serde_json::to_string(&snapshot).unwrap();
        let restored = Rack::restore(serde_json::from_str(&json).unwrap()).unwrap();
        assert_eq!(restored.snapshot(), snapshot);
    }
    world.finish();
    assert_eq!(comparable(&world.rack), start);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn hold_after_every_event_and_in_the_end_all_is_free(
        kind in prop::sample::select(vec![SwitchKind::Circuit, SwitchKind::Packet]),
        off in any::<bool>(),
        actions in actions(),
    ) {
        live(kind, if off { Power::Off } else { Power::On }, actions);
    }
}

/// The only port left goes to a brick in the tray that is woken, although one there that is powered has a little free.
#[test]
fn what_is_nearest_is_found_with_one_port_left() {
    let memory = |compute, pages, class, spread| Action::Reserve {
        compute: Some(compute),
        pages,
        class,
        spread,
        cores: 0,
        slots: 0,
        expires: false,
    };
    let actions = vec![
        Action::Init { group: 0, pages: 1 },
        memory(3, 21, LatencyClass::Tray, 1),
        Action::Join { group: 0, compute: 2 },
        memory(2, 27, LatencyClass::Interrack, 2),
    ];
    live(SwitchKind::Circuit, Power::Off, actions);
}
