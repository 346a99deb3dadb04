//! How much memory can stay off: synthetic classes of virtual machines on 64 units of 32 cores and 32 GiB, filled until a cluster of
//! 64 conventional servers first refuses (best fit). The shares to reach are the means of 30 runs of a prototype with other dice; for
//! memory each run is also held against the least that any placement could do with.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use rackmem_rack::{LatencyClass, Power, Rack, Request, Role};
use rackmem_types::Bytes;
use support::{Dice, GIB, Layout, establish, powered};

const UNITS: usize = 64;
const SEEDS: u64 = 300;
/// Seeds that the prototype was run with; its means are no more certain than that.
const PROTOTYPE_SEEDS: f64 = 30.0;

struct Class {
    name: &'static str,
    cores: (u64, u64),
    gib: (u64, u64),
    /// Percent of memory bricks, and of compute bricks, that the prototype left off.
    memory_off: f64,
    compute_off: f64,
}

const CLASSES: [Class; 6] = [
    Class { name: "Random", cores: (1, 32), gib: (1, 32), memory_off: 18.9, compute_off: 13.8 },
    Class { name: "HighRAM", cores: (1, 8), gib: (24, 32), memory_off: 11.7, compute_off: 85.2 },
    Class { name: "HighCPU", cores: (24, 32), gib: (1, 8), memory_off: 85.3, compute_off: 0.0 },
    Class { name: "HalfHalf", cores: (16, 16), gib: (16, 16), memory_off: 0.0, compute_off: 0.0 },
    Class { name: "MoreRAM", cores: (1, 6), gib: (17, 32), memory_off: 22.7, compute_off: 88.3 },
    Class { name: "MoreCPU", cores: (17, 32), gib: (1, 16), memory_off: 72.9, compute_off: 0.0 },
];

/// The machines that conventional servers take before they first refuse one: each goes to the server with least memory left.
fn machines(class: &Class, dice: &mut Dice) -> Vec<(u64, u64)> {
    let mut servers = [(32u64, 32u64); UNITS];
    let mut taken = Vec::new();
    loop {
        let (cores, gib) =
            (dice.between(class.cores.0, class.cores.1), dice.between(class.gib.0, class.gib.1));
        let fitting = servers.iter_mut().filter(|server| server.0 >= cores && server.1 >= gib);
        let Some(server) = fitting.min_by_key(|server| server.0 + server.1) else { return taken };
        *server = (server.0 - cores, server.1 - gib);
        taken.push((cores, gib));
    }
}

fn off(rack: &Rack, role: Role) -> f64 {
    let bricks: Vec<_> = rack.bricks().filter(|brick| brick.role() == role).collect();
    100.0 * bricks.iter().filter(|brick| brick.power() == Power::Off).count() as f64 / bricks.len() as f64
}

#[test]
fn as_much_stays_off_as_with_the_prototype() {
    println!("{:9} {:>9} {:>12} {:>12}", "class", "machines", "memory off", "compute off");
    let mut short = Vec::new();
    for class in CLASSES {
        let (mut memory, mut compute, mut count) = (Vec::new(), Vec::new(), 0);
        for seed in 0..SEEDS {
            let mut rack =
                Layout { power: Power::Off, ..Layout::tray(UNITS, UNITS, Bytes(32 * GIB)) }.build();
            let taken = machines(&class, &mut Dice(seed));
            count += taken.len();
            for (id, (cores, gib)) in (1..).zip(&taken) {
                let memory = Request::memory("p", None, Bytes(gib * GIB), LatencyClass::Tray);
                establish(&mut rack, id, &Request { cores: *cores as u32, ..memory }).unwrap();
            }
            assert_eq!(rack.audit(), Vec::<String>::new());
            // No placement whatever could do with less.
            let (on, _) = powered(&rack);
            let need: u64 = taken.iter().map(|(_, gib)| gib).sum();
            assert_eq!(Bytes::from_pages(on).0 / (32 * GIB), need.div_ceil(32), "{} seed {seed}", class.name);
            memory.push(off(&rack, Role::Memory));
            compute.push(off(&rack, Role::Compute));
        }
        let (memory, compute) = (Mean::of(&memory), Mean::of(&compute));
        let machines = count as u64 / SEEDS;
        println!("{:9} {machines:>9} {:>10.1} % {:>10.1} %", class.name, memory.value, compute.value);
        for (what, is, want) in
            [("memory", memory, class.memory_off), ("compute", compute, class.compute_off)]
        {
            if is.value + is.uncertainty < want {
                short.push(format!("{}: {:.2} % of {what} bricks off, not {want} %", class.name, is.value));
            }
        }
    }
    assert_eq!(short, Vec::<String>::new());
}

/// A mean, and how far two means of such samples lie apart by chance (two standard errors).
struct Mean {
    value: f64,
    uncertainty: f64,
}

impl Mean {
    fn of(samples: &[f64]) -> Self {
        let count = samples.len() as f64;
        let value = samples.iter().sum::<f64>() / count;
        let variance = samples.iter().map(|sample| (sample - value).powi(2)).sum::<f64>() / (count - 1.0);
        // The prototype's shares are printed with one digit.
        let uncertainty = 2.0 * (variance / count + variance / PROTOTYPE_SEEDS).sqrt() + 0.05;
        Self { value, uncertainty }
    }
}
