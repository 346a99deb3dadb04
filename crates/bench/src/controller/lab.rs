//! Where the experiments run: the product, and how large everything is.

use anyhow::Result;
use rackmem_rack::{Power, SwitchKind};
use rackmem_types::Bytes;

use super::support::{GIB, Layout};
use crate::product::Product;

/// The set-up of all experiments.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) product: Product,
    /// A tenth of everything but of the racks.
    pub(crate) quick: bool,
}

/// Racks of some size, and what is reserved of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) name: &'static str,
    racks: usize,
    trays: usize,
    pub(crate) reservations: u64,
}

/// A thousand bricks.
pub(crate) const SMALL: Size = Size { name: "1000 bricks", racks: 4, trays: 10, reservations: 10_000 };

/// Ten thousand bricks.
pub(crate) const LARGE: Size = Size { name: "10000 bricks", racks: 25, trays: 16, reservations: 100_000 };

/// Of the 25 bricks in a tray.
const COMPUTES_PER_TRAY: usize = 12;
const MEMORIES_PER_TRAY: usize = 13;

impl Lab {
    /// The full set-up, or one that says whether things work, not how well.
    pub(crate) fn new(quick: bool) -> Result<Self> {
        Ok(Self { product: Product::find()?, quick })
    }

    /// So much, or a tenth of it.
    pub(crate) fn scaled(&self, count: u64) -> u64 {
        if self.quick { count / 10 } else { count }
    }
}

impl Size {
    /// How many compute bricks; their names are `c0` and so on.
    pub(crate) fn computes(self) -> u64 {
        (self.racks * self.trays * COMPUTES_PER_TRAY) as u64
    }

    /// The racks.
    pub(crate) fn layout(self, kind: SwitchKind, power: Power) -> Layout {
        Layout {
            racks: self.racks,
            trays: self.trays,
            compute: COMPUTES_PER_TRAY,
            memory: MEMORIES_PER_TRAY,
            accelerators: 0,
            cores: 32,
            size: vec![Bytes(64 * GIB)],
            compute_ports: 8,
            memory_ports: 8,
            trunks: 16,
            kind,
            power,
        }
    }
}
