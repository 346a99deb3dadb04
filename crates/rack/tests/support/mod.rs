//! Racks made by rule, for tests and benchmarks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code, reason = "each test uses some of it")]

pub(crate) mod classes;
pub(crate) mod exact;
pub(crate) mod python;

use rackmem_rack::{
    BrickSpec, CableSpec, Event, Name, Offer, Place, Plan, PortRef, Power, Rack, Request, ReservationId,
    SwitchKind, SwitchSpec, planner,
};
use rackmem_types::Bytes;

pub(crate) const GIB: u64 = 1 << 30;

/// Racks of trays of bricks: a switch in each tray, one in each rack, and one between the racks if there are several.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) racks: usize,
    pub(crate) trays: usize,
    pub(crate) compute: usize,
    pub(crate) memory: usize,
    /// Accelerator bricks of four slots in each tray, with the ports of memory bricks.
    pub(crate) accelerators: usize,
    pub(crate) cores: u32,
    pub(crate) size: Vec<Bytes>,
    pub(crate) compute_ports: u16,
    pub(crate) memory_ports: u16,
    /// Cables from each tray's switch to its rack's, and from there to the one between.
    pub(crate) trunks: u16,
    pub(crate) kind: SwitchKind,
    pub(crate) power: Power,
}

impl Layout {
    /// One tray with a switch whose ports anybody may share.
    pub(crate) fn tray(compute: usize, memory: usize, size: Bytes) -> Self {
        Self {
            racks: 1,
            trays: 1,
            compute,
            memory,
            accelerators: 0,
            cores: 32,
            size: vec![size],
            compute_ports: 1,
            memory_ports: 1,
            trunks: 1,
            kind: SwitchKind::Packet,
            power: Power::On,
        }
    }

    pub(crate) fn build(&self) -> Rack {
        let mut rack = Rack::default();
        for event in self.events() {
            rack.apply(&event).unwrap();
        }
        rack
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let (mut computes, mut memories, mut accelerators) = (0, 0, 0);
        if self.racks > 1 {
            events.push(self.switch("spine", Place::Between, self.racks as u16 * self.trunks));
        }
        for r in 0..self.racks {
            let rack = name(&format!("r{r}"));
            events.push(Event::RackAdded(rack.clone()));
            let rack_switch = format!("r{r}-switch");
            let up = if self.racks > 1 { self.trunks } else { 0 };
            let ports = (self.trays as u16 * self.trunks + up).max(2);
            events.push(self.switch(&rack_switch, Place::Rack(rack.clone()), ports));
            for t in 0..self.trays {
                let tray = name(&format!("r{r}t{t}"));
                events.push(Event::TrayAdded { name: tray.clone(), rack: rack.clone() });
                let tray_switch = format!("r{r}t{t}-switch");
                let down = self.compute as u16 * self.compute_ports
                    + (self.memory + self.accelerators) as u16 * self.memory_ports
                    + self.trunks;
                events.push(self.switch(&tray_switch, Place::Tray(tray.clone()), down.max(2)));
                let mut port = 0;
                for _ in 0..self.compute {
                    let brick = format!("c{computes}");
                    computes += 1;
                    let offers = Offer::Compute { cores: self.cores, local: Bytes(32 * GIB) };
                    events.push(self.brick(&brick, &tray, self.compute_ports, offers));
                    events.extend(self.plug_in(&brick, self.compute_ports, &tray_switch, &mut port));
                }
                for _ in 0..self.memory {
                    let brick = format!("m{memories}");
                    let size = self.size[memories % self.size.len()];
                    memories += 1;
                    events.push(self.brick(&brick, &tray, self.memory_ports, Offer::Memory { size }));
                    events.extend(self.plug_in(&brick, self.memory_ports, &tray_switch, &mut port));
                }
                for _ in 0..self.accelerators {
                    let brick = format!("a{accelerators}");
                    accelerators += 1;
                    let offers = Offer::Accelerator { model: "fpga".to_owned(), slots: 4 };
                    events.push(self.brick(&brick, &tray, self.memory_ports, offers));
                    events.extend(self.plug_in(&brick, self.memory_ports, &tray_switch, &mut port));
                }
                for trunk in 0..self.trunks {
                    let other = t as u16 * self.trunks + trunk;
                    events.push(cable(
                        &format!("{tray_switch}:{}", port + trunk),
                        &format!("{rack_switch}:{other}"),
                        300,
                    ));
                }
            }
            for trunk in 0..up {
                let port = self.trays as u16 * self.trunks + trunk;
                let other = r as u16 * self.trunks + trunk;
                events.push(cable(&format!("{rack_switch}:{port}"), &format!("spine:{other}"), 900));
            }
        }
        events
    }

    fn switch(&self, of: &str, place: Place, ports: u16) -> Event {
        let (name, kind, address) = (name(of), self.kind, None);
        Event::SwitchAdded(SwitchSpec { name, place, kind, ports, watts: 50, address })
    }

    fn brick(&self, of: &str, tray: &Name, ports: u16, offers: Offer) -> Event {
        let (name, tray, power) = (name(of), tray.clone(), self.power);
        Event::BrickAdded(BrickSpec { name, tray, ports, offers, power, watts: 20, address: None })
    }

    fn plug_in(&self, brick: &str, ports: u16, switch: &str, next: &mut u16) -> Vec<Event> {
        let first = *next;
        *next += ports;
        (0..ports)
            .map(|port| cable(&format!("{brick}:{port}"), &format!("{switch}:{}", first + port), 100))
            .collect()
    }
}

pub(crate) fn cable(a: &str, b: &str, latency_ns: u32) -> Event {
    Event::CableAdded(CableSpec { ends: [port(a), port(b)], latency_ns, mbps: 10_000 })
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn port(text: &str) -> PortRef {
    text.parse().unwrap()
}

/// Plans, accepts and applies.
pub(crate) fn establish(
    rack: &mut Rack,
    id: u64,
    request: &Request,
) -> Result<Plan, rackmem_rack::RackError> {
    let id = ReservationId(id);
    let plan = planner::reserve(rack, id, request)?;
    rack.apply(&Event::Accepted(Box::new(plan.clone())))?;
    rack.apply(&Event::Started(id))?;
    rack.apply(&Event::Done(id))?;
    Ok(plan)
}

/// Plans the end of a reservation and carries it out.
pub(crate) fn end(rack: &mut Rack, id: u64) {
    let plan = planner::release(rack, ReservationId(id)).unwrap();
    rack.apply(&Event::Accepted(Box::new(plan))).unwrap();
    rack.apply(&Event::Done(ReservationId(id))).unwrap();
}

/// Memory of bricks that are not off, and of all, in pages.
pub(crate) fn powered(rack: &Rack) -> (u64, u64) {
    let memory = rack.bricks().filter(|brick| brick.role() == rackmem_rack::Role::Memory);
    memory.fold((0, 0), |(on, all), brick| {
        let pages = brick.capacity();
        (on + if brick.power() == Power::Off { 0 } else { pages }, all + pages)
    })
}

/// A small generator of numbers that look random (SplitMix64): one seed, one history.
#[derive(Clone)]
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `from` to `to`, both included.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }
}
