//! Bricks: as they are registered (S9), and as they are.

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema::BytesSchema;

/// The content of a rack file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RackFile {
    /// The file, TOML. Everything in it is registered, or nothing.
    pub file: String,
}

/// What a brick offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", tag = "kind", deny_unknown_fields)]
pub enum BrickKind {
    /// Processors with some memory of their own.
    Compute {
        /// Cores for virtual machines.
        cores: u32,
        /// Local memory for virtual machines.
        #[schema(value_type = BytesSchema)]
        local: Bytes,
    },
    /// A memory server's pool.
    Memory {
        /// Size of the pool.
        #[schema(value_type = BytesSchema)]
        size: Bytes,
    },
    /// Accelerators.
    Accelerator {
        /// The model.
        model: String,
        /// Regions that are reserved one by one.
        slots: u32,
    },
}

/// A cable of a new brick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CableNew {
    /// The brick's port, counted from 0.
    pub port: u16,
    /// The port at the other end, `NAME:PORT`.
    #[schema(example = "s1:3")]
    pub to: String,
    /// One-way latency in nanoseconds.
    pub latency_ns: u32,
    /// Bandwidth in megabits per second.
    pub mbps: u32,
}

/// A brick to be registered, with its cables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BrickNew {
    /// Its name.
    #[schema(example = "c1")]
    pub name: String,
    /// The tray it sits in.
    #[schema(example = "t1")]
    pub tray: String,
    /// Ports for cables.
    pub ports: u16,
    /// What it offers.
    pub offers: BrickKind,
    /// What it draws when on; 0 if unknown.
    #[serde(default)]
    pub watts: u32,
    /// Where its agent or memory server listens.
    #[serde(default)]
    pub address: Option<String>,
    /// Its cables.
    #[serde(default)]
    pub cables: Vec<CableNew>,
}

/// Whether a brick draws power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PowerState {
    /// Off.
    Off,
    /// Being woken.
    Waking,
    /// On.
    On,
}

/// A brick as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BrickView {
    /// Its name.
    pub name: String,
    /// The tray it sits in.
    pub tray: String,
    /// Ports for cables.
    pub ports: u16,
    /// What it offers.
    pub offers: BrickKind,
    /// Its power.
    pub power: PowerState,
    /// Whether it answered when it was last asked.
    pub reachable: bool,
    /// Whether it takes nothing new because it is to be removed.
    pub draining: bool,
    /// What it has: bytes of a memory brick, cores of a compute brick, slots of an accelerator brick.
    pub capacity: u64,
    /// What is taken of that.
    pub used: u64,
    /// Local memory that is free on a compute brick.
    #[schema(value_type = BytesSchema)]
    pub local_free: Bytes,
    /// What it draws when on; 0 if unknown.
    pub watts: u32,
    /// Where its agent or memory server listens.
    pub address: Option<String>,
}

/// Whether a brick drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// `false` lets it take new things again.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub draining: bool,
    /// It is gone for good: what only its agent could take away counts as gone. Refused while it answers.
    #[serde(default)]
    #[schema(default = false)]
    pub lost: bool,
}

const fn yes() -> bool {
    true
}
