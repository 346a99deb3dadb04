//! What a simulated brick is like.

use std::ops::RangeInclusive;

use rackmem_types::{Bytes, ServerAddress};

/// A simulated brick.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Name of the host.
    pub name: String,
    /// Processors.
    pub cores: u32,
    /// Its memory; seven eighths of it are for virtual machines.
    pub memory: Bytes,
    /// Memory servers of its own, without the controller.
    pub memory_servers: Vec<ServerAddress>,
    /// What these lend, all together.
    pub far: Bytes,
    /// Machines that somebody else started here, which can be given far memory.
    pub domains: Vec<SimDomain>,
    /// How long things take.
    pub latencies: Latencies,
    /// How often things fail.
    pub failures: Failures,
    /// Where all randomness comes from.
    pub seed: u64,
}

/// A machine that somebody else started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimDomain {
    /// Its name, which has to be one that the agent can take over.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// Its memory.
    pub memory: Bytes,
}

/// How long things take, in milliseconds; each time is drawn from its range.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// One step of an operation.
    pub step_ms: RangeInclusive<u64>,
    /// The guest's boot.
    pub boot_ms: RangeInclusive<u64>,
    /// The guest's shutting down, when it is asked to.
    pub shut_down_ms: RangeInclusive<u64>,
    /// Plugging or taking back 1 GiB.
    pub gib_ms: RangeInclusive<u64>,
}

/// How often things fail, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failures {
    /// A step of an operation fails, and what was done before is undone.
    pub step_permille: u32,
    /// A request is refused as not available now.
    pub request_permille: u32,
}

impl Default for SimConfig {
    /// A brick of 16 processors and 64 GiB, with 256 GiB on a memory server.
    fn default() -> Self {
        Self {
            name: "sim".to_owned(),
            cores: 16,
            memory: Bytes(64 << 30),
            memory_servers: vec![ServerAddress::Tcp { host: "memory-1".to_owned(), port: 7070 }],
            far: Bytes(256 << 30),
            domains: Vec::new(),
            latencies: Latencies::default(),
            failures: Failures::default(),
            seed: 0,
        }
    }
}

impl Default for Latencies {
    /// About what the real agent takes with KVM.
    fn default() -> Self {
        Self { step_ms: 2..=20, boot_ms: 500..=2000, shut_down_ms: 2..=20, gib_ms: 20..=60 }
    }
}

impl Latencies {
    /// Nothing takes any time: for tests and for measuring everything else.
    pub fn none() -> Self {
        Self { step_ms: 0..=0, boot_ms: 0..=0, shut_down_ms: 0..=0, gib_ms: 0..=0 }
    }
}

impl SimConfig {
    /// What the agent may promise to virtual machines; the rest is for the host itself.
    pub(crate) const fn pool(&self) -> Bytes {
        Bytes(self.memory.0 / 8 * 7)
    }
}
