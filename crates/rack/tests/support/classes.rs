//! Synthetic classes of virtual machines on 64 units of 32 cores and 32 GiB, filled until a cluster of 64 conventional servers first
//! refuses (best fit). What is to be reached are the means of a prototype's [`RUNS`], which are repeated here machine by machine.

use rackmem_rack::{LatencyClass, Power, Rack, Request, Role};
use rackmem_types::Bytes;

use super::python::Random;
use super::{GIB, Layout, establish, powered};

pub(crate) const UNITS: usize = 64;

/// The seeds of the prototype's runs. It threw Python's dice: for each machine its cores, then its memory.
pub(crate) const RUNS: std::ops::Range<u64> = 0..30;

/// A class, and the means of the prototype's runs of it, to the digit that it printed.
pub(crate) struct Class {
    pub(crate) name: &'static str,
    cores: (u32, u32),
    gib: (u32, u32),
    /// Machines that the conventional servers take.
    pub(crate) machines: f64,
    /// Percent of compute bricks, and of memory bricks, that are off with these machines.
    pub(crate) compute_off: f64,
    pub(crate) memory_off: f64,
    /// Machines that the bricks take beside them, in percent of them.
    pub(crate) more: f64,
}

/// The prototype's table: cores, GiB, machines, compute off, memory off, more.
pub(crate) const CLASSES: [Class; 6] = [
    class("Random", (1, 32), (1, 32), [100.0, 13.8, 18.9, 14.9]),
    class("HighRAM", (1, 8), (24, 32), [64.0, 85.2, 11.7, 13.7]),
    class("HighCPU", (24, 32), (1, 8), [64.0, 0.0, 85.3, 0.0]),
    class("HalfHalf", (16, 16), (16, 16), [128.0, 0.0, 0.0, 0.0]),
    class("MoreRAM", (1, 6), (17, 32), [64.0, 88.3, 22.7, 30.1]),
    class("MoreCPU", (17, 32), (1, 16), [64.0, 0.0, 72.9, 0.0]),
];

const fn class(name: &'static str, cores: (u32, u32), gib: (u32, u32), printed: [f64; 4]) -> Class {
    let [machines, compute_off, memory_off, more] = printed;
    Class { name, cores, gib, machines, compute_off, memory_off, more }
}

/// How a rack of bricks took what the conventional servers took, and more.
pub(crate) struct Outcome {
    /// With the machines that the servers took.
    pub(crate) rack: Rack,
    pub(crate) machines: u64,
    /// Memory bricks that are on, and the fewest that any placement whatever could do with.
    pub(crate) on: u64,
    pub(crate) least: u64,
    /// Machines that the bricks took beside them before they first refused one.
    pub(crate) more: u64,
}

impl Class {
    /// Places the machines of one seed.
    pub(crate) fn place(&self, seed: u64) -> Outcome {
        let mut dice = Random::new(seed as u32);
        let taken = self.machines(&mut dice);
        let mut rack = Layout { power: Power::Off, ..Layout::tray(UNITS, UNITS, Bytes(32 * GIB)) }.build();
        let mut ids = 1..;
        let mut put = |rack: &mut Rack, (cores, gib): (u32, u32)| {
            let memory = Request::memory("p", None, Bytes(u64::from(gib) * GIB), LatencyClass::Tray);
            establish(rack, ids.next().unwrap_or(0), &Request { cores, ..memory })
        };
        for machine in &taken {
            put(&mut rack, *machine).unwrap();
        }
        let mut fuller = rack.clone();
        let more = std::iter::from_fn(|| put(&mut fuller, self.machine(&mut dice)).ok()).count() as u64;
        let on = Bytes::from_pages(powered(&rack).0).0 / (32 * GIB);
        let need: u32 = taken.iter().map(|(_, gib)| gib).sum();
        Outcome { rack, machines: taken.len() as u64, on, least: need.div_ceil(32).into(), more }
    }

    /// The machines that conventional servers take before they first refuse one: each goes to the server that it fills most.
    fn machines(&self, dice: &mut Random) -> Vec<(u32, u32)> {
        let mut servers = [(32, 32); UNITS];
        let mut taken = Vec::new();
        loop {
            let (cores, gib) = self.machine(dice);
            let fitting = servers.iter_mut().filter(|server| server.0 >= cores && server.1 >= gib);
            let Some(server) = fitting.min_by_key(|server| server.0 + server.1) else { return taken };
            *server = (server.0 - cores, server.1 - gib);
            taken.push((cores, gib));
        }
    }

    /// Cores and GiB of the next machine.
    fn machine(&self, dice: &mut Random) -> (u32, u32) {
        (dice.randint(self.cores.0, self.cores.1), dice.randint(self.gib.0, self.gib.1))
    }
}

/// Percent of the bricks of a kind that are off.
pub(crate) fn off(rack: &Rack, role: Role) -> f64 {
    let bricks: Vec<_> = rack.bricks().filter(|brick| brick.role() == role).collect();
    100.0 * bricks.iter().filter(|brick| brick.power() == Power::Off).count() as f64 / bricks.len() as f64
}

/// The mean of the prototype's runs, to the digit that it printed.
pub(crate) fn mean(runs: impl IntoIterator<Item = f64>) -> f64 {
    let sum: f64 = runs.into_iter().sum();
    (sum / RUNS.end as f64 * 10.0).round() / 10.0
}
