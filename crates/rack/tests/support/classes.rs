//! Synthetic classes of virtual machines on 64 units of 32 cores and 32 GiB, filled until a cluster of 64 conventional servers first
//! refuses (best fit). The shares to reach are the means of 30 runs of a prototype with other dice.

use rackmem_rack::{LatencyClass, Power, Rack, Request, Role};
use rackmem_types::Bytes;

use super::{Dice, GIB, Layout, establish, powered};

pub(crate) const UNITS: usize = 64;

/// Seeds that the prototype was run with; its means are no more certain than that.
const PROTOTYPE_SEEDS: f64 = 30.0;

pub(crate) struct Class {
    pub(crate) name: &'static str,
    cores: (u64, u64),
    gib: (u64, u64),
    /// Percent of memory bricks, and of compute bricks, that the prototype left off.
    pub(crate) memory_off: f64,
    pub(crate) compute_off: f64,
}

pub(crate) const CLASSES: [Class; 6] = [
    Class { name: "Random", cores: (1, 32), gib: (1, 32), memory_off: 18.9, compute_off: 13.8 },
    Class { name: "HighRAM", cores: (1, 8), gib: (24, 32), memory_off: 11.7, compute_off: 85.2 },
    Class { name: "HighCPU", cores: (24, 32), gib: (1, 8), memory_off: 85.3, compute_off: 0.0 },
    Class { name: "HalfHalf", cores: (16, 16), gib: (16, 16), memory_off: 0.0, compute_off: 0.0 },
    Class { name: "MoreRAM", cores: (1, 6), gib: (17, 32), memory_off: 22.7, compute_off: 88.3 },
    Class { name: "MoreCPU", cores: (17, 32), gib: (1, 16), memory_off: 72.9, compute_off: 0.0 },
];

/// How a rack of bricks took what the conventional servers took.
pub(crate) struct Outcome {
    pub(crate) rack: Rack,
    pub(crate) machines: usize,
    /// Memory bricks that are on, and the fewest that any placement whatever could do with.
    pub(crate) on: u64,
    pub(crate) least: u64,
}

impl Class {
    /// Places the machines of one seed.
    pub(crate) fn place(&self, seed: u64) -> Outcome {
        let mut rack = Layout { power: Power::Off, ..Layout::tray(UNITS, UNITS, Bytes(32 * GIB)) }.build();
        let taken = self.machines(&mut Dice(seed));
        for (id, (cores, gib)) in (1..).zip(&taken) {
            let memory = Request::memory("p", None, Bytes(gib * GIB), LatencyClass::Tray);
            establish(&mut rack, id, &Request { cores: *cores as u32, ..memory }).unwrap();
        }
        let on = Bytes::from_pages(powered(&rack).0).0 / (32 * GIB);
        let need: u64 = taken.iter().map(|(_, gib)| gib).sum();
        Outcome { rack, machines: taken.len(), on, least: need.div_ceil(32) }
    }

    /// The machines that conventional servers take before they first refuse one: each goes to the server with least memory left.
    fn machines(&self, dice: &mut Dice) -> Vec<(u64, u64)> {
        let mut servers = [(32u64, 32u64); UNITS];
        let mut taken = Vec::new();
        loop {
            let (cores, gib) =
                (dice.between(self.cores.0, self.cores.1), dice.between(self.gib.0, self.gib.1));
            let fitting = servers.iter_mut().filter(|server| server.0 >= cores && server.1 >= gib);
            let Some(server) = fitting.min_by_key(|server| server.0 + server.1) else { return taken };
            *server = (server.0 - cores, server.1 - gib);
            taken.push((cores, gib));
        }
    }
}

/// Percent of the bricks of a kind that are off.
pub(crate) fn off(rack: &Rack, role: Role) -> f64 {
    let bricks: Vec<_> = rack.bricks().filter(|brick| brick.role() == role).collect();
    100.0 * bricks.iter().filter(|brick| brick.power() == Power::Off).count() as f64 / bricks.len() as f64
}

/// A mean, and how far two means of such samples lie apart by chance (two standard errors).
pub(crate) struct Mean {
    pub(crate) value: f64,
    pub(crate) uncertainty: f64,
}

impl Mean {
    pub(crate) fn of(samples: &[f64]) -> Self {
        let count = samples.len() as f64;
        let value = samples.iter().sum::<f64>() / count;
        let variance = samples.iter().map(|sample| (sample - value).powi(2)).sum::<f64>() / (count - 1.0);
        // The prototype's shares are printed with one digit.
        let uncertainty = 2.0 * (variance / count + variance / PROTOTYPE_SEEDS).sqrt() + 0.05;
        Self { value, uncertainty }
    }
}
