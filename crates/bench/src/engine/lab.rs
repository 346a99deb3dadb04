//! Where the experiments run: the programs, the sizes and the durations, the same for rackmem and for its peers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rackmem_types::Bytes;

use crate::process::{on_cpu, own_program};
use crate::product::{MemoryServer, Product};

/// Far memory beyond the workload's: pages of the program itself travel too.
const SPARE: Bytes = Bytes(256 << 20);

/// The set-up of all experiments.
#[derive(Debug)]
pub(crate) struct Lab {
    product: Option<Product>,
    own: PathBuf,
    /// Memory of the touched programs.
    pub(crate) size: Bytes,
    /// Seconds that a steady state is measured.
    pub(crate) seconds: f64,
    /// Seconds before the measurement.
    pub(crate) warmup: f64,
    /// The larger of the two targets whose attach is timed.
    pub(crate) large_target: Bytes,
}

impl Lab {
    pub(crate) fn full() -> Result<Self> {
        Ok(Self {
            product: Product::find().ok(),
            own: own_program()?,
            size: Bytes(256 << 20),
            seconds: 3.0,
            warmup: 1.5,
            large_target: Bytes(4 << 30),
        })
    }

    /// Says whether things work, not how well.
    pub(crate) fn quick() -> Result<Self> {
        Ok(Self {
            size: Bytes(64 << 20),
            seconds: 1.0,
            warmup: 0.5,
            large_target: Bytes(1 << 30),
            ..Self::full()?
        })
    }

    pub(crate) fn product(&self) -> Result<&Product> {
        self.product.as_ref().context("the rackmem program is missing: cargo build --release -p rackmem-cli")
    }

    pub(crate) fn own(&self) -> &Path {
        &self.own
    }

    /// `percent` of the workload's memory.
    pub(crate) fn share(&self, percent: u64) -> Bytes {
        Bytes::from_pages(self.size.pages() * percent / 100)
    }

    /// A memory server that can hold the workload.
    pub(crate) fn memory_server(&self, cpu: Option<usize>) -> Result<MemoryServer> {
        self.product()?.memory_server(Bytes(self.size.0 + SPARE.0), cpu)
    }

    /// This program, to be given a workload's arguments.
    pub(crate) fn native(&self, cpu: Option<usize>) -> Command {
        on_cpu(cpu, &self.own)
    }

    /// This program under `rackmem run`, to be given a workload's arguments.
    pub(crate) fn far(&self, server: &MemoryServer, local: Bytes, cpu: Option<usize>) -> Result<Command> {
        Ok(self.product()?.run(server, local, cpu, &self.own))
    }
}
