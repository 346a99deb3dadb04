//! Where the experiments run: the programs, the guest and the sizes, the same for rackmem and for its peer.

use anyhow::Result;
use guest_probe::GuestFiles;
use rackmem_types::Bytes;

use crate::product::Product;

/// The set-up of all experiments.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) product: Product,
    pub(crate) guest: GuestFiles,
    pub(crate) accelerator: Option<String>,
    /// Memory by which a guest grows, and of the guest that is booted instead.
    pub(crate) growth: Bytes,
    /// Memory of the guest whose reads are measured.
    pub(crate) memory: Bytes,
    /// Reads before the measurement, and reads that are measured.
    pub(crate) reads: [u64; 2],
}

impl Lab {
    /// The full set-up, or one that says whether things work, not how well.
    pub(crate) fn new(quick: bool, accelerator: Option<&str>) -> Result<Self> {
        let (growth, memory, reads) = if quick {
            (Bytes(512 << 20), Bytes(384 << 20), [5_000, 20_000])
        } else {
            (Bytes(1 << 30), Bytes(512 << 20), [40_000, 150_000])
        };
        Ok(Self {
            product: Product::find()?,
            guest: GuestFiles::find()?,
            accelerator: accelerator.map(str::to_owned),
            growth,
            memory,
            reads,
        })
    }
}
