//! Racks far larger than this machine: a long history through the same planner, with every invariant checked on the way.
//!
//! A thousand bricks by default. `cargo nextest run --profile long` has ten thousand with a hundred thousand reservations.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use rackmem_rack::{
    AcceleratorNeed, Event, GroupNeed, LatencyClass, Plan, Power, Rack, RackError, Request, ReservationId,
    State, SwitchKind, planner,
};
use rackmem_types::Bytes;
use support::{Dice, GIB, Layout, name};

/// Audits in one history: each goes through everything that there is.
const AUDITS: u64 = 20;

struct World {
    rack: Rack,
    dice: Dice,
    next: u64,
    /// Reservations that are applied, and how many were ever made.
    live: Vec<ReservationId>,
    made: u64,
    refused: u64,
    computes: u64,
    memories: u64,
}

impl World {
    fn new(racks: usize, trays: usize, kind: SwitchKind) -> Self {
        let layout = Layout {
            racks,
            trays,
            compute: 12,
            memory: 12,
            accelerators: 1,
            cores: 32,
            size: vec![Bytes(64 * GIB), Bytes(96 * GIB)],
            compute_ports: 8,
            memory_ports: 8,
            trunks: 16,
            kind,
            power: Power::Off,
        };
        let each = (racks * trays * 12) as u64;
        let (rack, dice, live) = (layout.build(), Dice(11), Vec::new());
        Self { rack, dice, next: 1, live, made: 0, refused: 0, computes: each, memories: each }
    }

    /// Until there are so many reservations, mostly new ones; then as many changes again.
    fn live_through(&mut self, reservations: u64) {
        let steps = 2 * reservations;
        for step in 1..=steps {
            let full = self.live.len() as u64 >= reservations;
            match self.dice.between(0, 99) {
                0..=1 => self.change(|rack, id| planner::grow(rack, id, Bytes(GIB / 8))),
                2..=3 => self.change(|rack, id| planner::shrink(rack, id, Bytes(GIB))),
                4 => self.drain_some(),
                5..=14 => self.release_one(),
                15..=54 if full => self.release_one(),
                _ => self.reserve(),
            }
            if step % (steps / AUDITS) == 0 {
                assert_eq!(self.rack.audit(), Vec::<String>::new(), "after {step} steps");
            }
        }
    }

    fn pick(&mut self) -> Option<usize> {
        (!self.live.is_empty()).then(|| self.dice.next() as usize % self.live.len())
    }

    fn request(&mut self) -> Request {
        let class =
            [LatencyClass::Tray, LatencyClass::Rack, LatencyClass::Interrack][self.dice.next() as usize % 3];
        let any = self.dice.between(1, 10) <= 2;
        let compute = (!any).then(|| name(&format!("c{}", self.dice.next() % self.computes)));
        let memory = Bytes::from_pages(self.dice.between(1, 32) << 14);
        let mut request = Request::memory("p", compute, memory, class);
        request.cores = u32::from(any);
        match self.dice.between(0, 19) {
            0 => request.accelerator = Some(AcceleratorNeed { model: None, slots: 1 }),
            1 => request.group = Some(GroupNeed::Init(name(&format!("g{}", self.next)))),
            2 => {
                let group = self.rack.groups().next().map(|(name, _)| name.clone());
                if let Some(group) = group {
                    let (project, compute) = (&request.project, request.compute.clone());
                    let join = Request::memory(project, compute, Bytes(0), LatencyClass::Interrack);
                    request = Request { group: Some(GroupNeed::Join(group)), ..join };
                }
            }
            _ => {}
        }
        request
    }

    fn reserve(&mut self) {
        let id = ReservationId(self.next);
        self.next += 1;
        let request = self.request();
        match planner::reserve(&self.rack, id, &request) {
            Ok(plan) => {
                self.accept(plan);
                self.rack.apply(&Event::Started(id)).unwrap();
                self.rack.apply(&Event::Done(id)).unwrap();
                self.live.push(id);
                self.made += 1;
            }
            Err(RackError::Refused(_) | RackError::Request(_)) => self.refused += 1,
            Err(error) => panic!("{error}"),
        }
    }

    fn accept(&mut self, plan: Plan) {
        self.rack.apply(&Event::Accepted(Box::new(plan))).unwrap();
    }

    fn change(&mut self, plan: impl Fn(&Rack, ReservationId) -> Result<Plan, RackError>) {
        let Some(place) = self.pick() else { return };
        let id = self.live[place];
        if let Ok(plan) = plan(&self.rack, id) {
            self.accept(plan);
            self.rack.apply(&Event::Done(id)).unwrap();
        }
    }

    fn release_one(&mut self) {
        let Some(place) = self.pick() else { return };
        let id = self.live.swap_remove(place);
        let plan = planner::release(&self.rack, id).unwrap();
        self.accept(plan);
        self.rack.apply(&Event::Done(id)).unwrap();
    }

    /// A brick drains for a while: what lies on it moves elsewhere, as far as that can be.
    fn drain_some(&mut self) {
        let brick = name(&format!("m{}", self.dice.next() % self.memories));
        self.rack.apply(&Event::Draining { brick: brick.clone(), draining: true }).unwrap();
        for _ in 0..4 {
            let Ok(Some(plan)) = planner::drain_next(&self.rack, &brick) else { break };
            let id = plan.reservation();
            self.accept(plan);
            self.rack.apply(&Event::Done(id)).unwrap();
        }
        self.rack.apply(&Event::Draining { brick, draining: false }).unwrap();
    }

    /// Ends everything: nothing is left.
    fn finish(&mut self) {
        while !self.live.is_empty() {
            self.release_one();
        }
        assert_eq!(self.rack.audit(), Vec::<String>::new());
        assert_eq!(self.rack.reservations().len(), 0);
        assert_eq!(self.rack.segments().count(), 0);
        assert_eq!(self.rack.circuits().count(), 0);
        assert!(self.rack.bricks().all(rackmem_rack::Brick::is_idle));
    }
}

fn check(racks: usize, trays: usize, reservations: u64) {
    for kind in [SwitchKind::Packet, SwitchKind::Circuit] {
        let mut world = World::new(racks, trays, kind);
        world.live_through(reservations);
        let (bricks, live) = (world.rack.bricks().count(), world.live.len());
        println!(
            "{kind:?}: {bricks} bricks, {live} reservations of {} made, {} refused",
            world.made, world.refused
        );
        assert!(world.live.iter().all(|id| world.rack.reservation(*id).unwrap().state == State::Applied));
        if kind == SwitchKind::Packet {
            assert!(live as u64 >= reservations * 9 / 10, "{live} reservations are too few to say much");
        }
        world.finish();
    }
}

#[test]
fn invariants_hold_through_the_life_of_a_thousand_bricks() {
    check(4, 10, 10_000);
}

#[test]
fn invariants_hold_through_the_life_of_ten_thousand_bricks() {
    check(25, 16, 100_000);
}
