//! Bricks: what they have and how much of it is taken.

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};

use super::{CircuitEnd, Lanes, Link, Site};
use crate::extents::Extents;
use crate::{Name, RackError};

/// Most ports of a brick or switch: today's largest optical switches have 576.
pub const PORTS_MAX: u16 = 1024;

/// NetPort entries of a compute brick. D4.1 has "a fixed number"; ours is what an agent's table is tested with.
pub const NETPORTS_MAX: usize = 1024;

/// Pages of a compute brick's far address space: slots are 32 bits wide, which is 16 TiB.
pub const FAR_PAGES_MAX: u64 = 1 << 32;

/// Most memory of a brick, 256 TiB: more than processors address today, and little enough that sums over all bricks fit 64 bits.
const BRICK_MEMORY_MAX: Bytes = Bytes(256 << 40);

/// Longest model of an accelerator, in characters. It is in every refusal that speaks of it.
const MODEL_CHARS_MAX: usize = 63;

/// A brick as it is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrickSpec {
    /// Its name.
    pub name: Name,
    /// The tray it sits in.
    pub tray: Name,
    /// Ports for cables, counted from 0.
    pub ports: u16,
    /// What it offers.
    pub offers: Offer,
    /// Whether it is powered on.
    pub power: Power,
    /// What it draws when on, as its maker says; 0 if unknown.
    #[serde(default)]
    pub watts: u32,
    /// Where its agent or memory server listens. Carried, never used here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// What a brick offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Offer {
    /// Processors with some memory of their own.
    Compute {
        /// Cores for virtual machines.
        cores: u32,
        /// Local memory for virtual machines.
        local: Bytes,
    },
    /// A memory server's pool.
    Memory {
        /// Size of the pool.
        size: Bytes,
    },
    /// Accelerators.
    Accelerator {
        /// What a request asks for, for example `fpga`.
        model: String,
        /// Regions that are reserved one by one.
        slots: u32,
    },
}

/// The kind of a brick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Compute brick.
    Compute,
    /// Memory brick.
    Memory,
    /// Accelerator brick.
    Accelerator,
}

/// Whether a brick draws power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// Off: it is woken only if no brick that is on will do.
    Off,
    /// A plan wakes it; nobody has seen it on yet.
    Waking,
    /// On.
    #[default]
    On,
}

/// A brick and what is taken of it.
#[derive(Clone, Debug)]
pub struct Brick {
    pub(crate) spec: BrickSpec,
    pub(crate) site: Site,
    /// The cable in each port.
    pub(crate) ports: Vec<Option<Link>>,
    /// The same cables by what they lead to.
    pub(crate) lanes: Lanes,
    /// The circuits that end at it, ascending.
    pub(crate) circuits: Vec<CircuitEnd>,
    pub(crate) power: Power,
    pub(crate) reachable: bool,
    pub(crate) draining: bool,
    /// Whether a further circuit can end at it; kept by [`crate::Rack`] as cables and circuits come and go.
    pub(crate) open: bool,
    /// A memory brick's pool, or a compute brick's far address space (its NetPort table).
    pub(crate) extents: Extents,
    /// Pages that the memory server holds for somebody we do not know.
    pub(crate) stray_pages: u64,
    /// Cores or slots that are taken.
    pub(crate) units_used: u32,
    /// Local memory that is taken, in pages.
    pub(crate) local_used: u64,
}

impl Brick {
    pub(crate) fn new(spec: BrickSpec, site: Site) -> Self {
        let pages = match spec.offers {
            Offer::Compute { .. } => FAR_PAGES_MAX,
            Offer::Memory { size } => size.pages(),
            Offer::Accelerator { .. } => 0,
        };
        Self {
            ports: vec![None; spec.ports.into()],
            lanes: Lanes::default(),
            circuits: Vec::new(),
            power: spec.power,
            extents: Extents::new(pages),
            spec,
            site,
            reachable: true,
            draining: false,
            open: false,
            stray_pages: 0,
            units_used: 0,
            local_used: 0,
        }
    }

    /// As it was registered, with the capacity that was last observed.
    pub fn spec(&self) -> &BrickSpec {
        &self.spec
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.spec.name
    }

    /// Its kind.
    pub fn role(&self) -> Role {
        match self.spec.offers {
            Offer::Compute { .. } => Role::Compute,
            Offer::Memory { .. } => Role::Memory,
            Offer::Accelerator { .. } => Role::Accelerator,
        }
    }

    /// Its power.
    pub fn power(&self) -> Power {
        self.power
    }

    /// Whether it answered when it was last asked.
    pub fn is_reachable(&self) -> bool {
        self.reachable
    }

    /// Whether it is gone for good, as somebody said who knows: nobody has to be asked there any more.
    pub fn is_lost(&self) -> bool {
        self.draining && !self.reachable && self.power == Power::Off
    }

    /// Whether it takes nothing new because it is to be removed.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Owners of pages: of the pool if it is a memory brick, of the far address space if it is a compute brick.
    pub fn extents(&self) -> &Extents {
        &self.extents
    }

    /// Capacity in its own unit: pages of a memory brick, cores of a compute brick, slots of an accelerator brick.
    pub fn capacity(&self) -> u64 {
        match self.spec.offers {
            Offer::Compute { cores, .. } => cores.into(),
            Offer::Memory { size } => size.pages(),
            Offer::Accelerator { slots, .. } => slots.into(),
        }
    }

    /// What is taken, in the unit of [`Brick::capacity`]. Pages of strangers count.
    pub fn used(&self) -> u64 {
        match self.role() {
            Role::Memory => self.extents.used() + self.stray_pages,
            Role::Compute | Role::Accelerator => self.units_used.into(),
        }
    }

    /// What is free, in the unit of [`Brick::capacity`].
    pub fn free(&self) -> u64 {
        self.capacity().saturating_sub(self.used())
    }

    /// Local memory that is free on a compute brick.
    pub fn local_free(&self) -> Bytes {
        match self.spec.offers {
            Offer::Compute { local, .. } => Bytes::from_pages(local.pages().saturating_sub(self.local_used)),
            Offer::Memory { .. } | Offer::Accelerator { .. } => Bytes(0),
        }
    }

    /// Whether nothing of it is taken.
    pub fn is_idle(&self) -> bool {
        self.used() == 0 && self.extents.used() == 0 && self.local_used == 0
    }

    /// Whether new things may be placed on it, if need be after waking it.
    pub(crate) fn takes_more(&self) -> bool {
        self.reachable && !self.draining
    }

    /// An offer that could not be used is refused at registration.
    pub(crate) fn check(spec: &BrickSpec) -> Result<(), RackError> {
        let problem = match &spec.offers {
            _ if spec.ports > PORTS_MAX => Some("has more than 1024 ports"),
            Offer::Compute { cores: 0, .. } => Some("has no cores"),
            Offer::Memory { size } if size.pages() == 0 => Some("has less than one page of memory"),
            Offer::Memory { size: memory } | Offer::Compute { local: memory, .. }
                if *memory > BRICK_MEMORY_MAX =>
            {
                Some("has more than 256TiB of memory, which no brick has")
            }
            Offer::Accelerator { slots: 0, .. } => Some("has no slots"),
            Offer::Accelerator { model, .. } if !is_model(model) => {
                Some("needs a model of 1 to 63 characters, without line breaks and the like")
            }
            _ => None,
        };
        match problem {
            Some(problem) => Err(RackError::Useless { name: spec.name.clone(), problem }),
            None => Ok(()),
        }
    }
}

fn is_model(model: &str) -> bool {
    !model.trim().is_empty() && model.chars().count() <= MODEL_CHARS_MAX && !model.contains(char::is_control)
}
