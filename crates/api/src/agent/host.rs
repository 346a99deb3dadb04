//! The brick itself, in numbers.

use rackmem_types::{Bytes, ServerAddress};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::vm::Accelerator;
use crate::generation::Generation;
use crate::schema::{BytesSchema, ServerAddressSchema};

/// The brick as its agent sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostView {
    /// Name of the host.
    pub name: String,
    /// Version of the agent.
    pub version: String,
    /// Highest generation that was seen; send this or a higher one.
    pub generation: Generation,
    /// Processors.
    pub cores: u32,
    /// Its memory.
    pub memory: HostMemory,
    /// NUMA nodes.
    pub numa: Vec<NumaNode>,
    /// How much its programs wait.
    pub pressure: Option<Pressure>,
    /// Its power.
    pub power: Option<Power>,
    /// How virtual machines' processors are run here.
    pub accelerator: Accelerator,
    /// Version of QEMU, where there is one.
    pub qemu: Option<String>,
    /// Memory servers that lend far memory where a request names none.
    #[schema(value_type = Vec<ServerAddressSchema>)]
    pub memory_servers: Vec<ServerAddress>,
    /// Virtual machines.
    pub vms: u32,
    /// Physical attachments.
    pub attachments: u32,
    /// Operations that are running.
    pub operations: u32,
    /// When the agent was started, milliseconds since 1970.
    pub started_ms: u64,
    /// Now, milliseconds since 1970.
    pub now_ms: u64,
}

/// The brick's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostMemory {
    /// All of it.
    #[schema(value_type = BytesSchema)]
    pub total: Bytes,
    /// What programs could still have without swapping.
    #[schema(value_type = BytesSchema)]
    pub available: Bytes,
    /// What the agent may promise to virtual machines as resident memory.
    #[schema(value_type = BytesSchema)]
    pub pool: Bytes,
    /// What is promised: the sum of the local limits, and of the memory of machines without one.
    #[schema(value_type = BytesSchema)]
    pub promised: Bytes,
    /// What virtual machines have resident now.
    #[schema(value_type = BytesSchema)]
    pub local: Bytes,
    /// What virtual machines have on memory servers now.
    #[schema(value_type = BytesSchema)]
    pub far: Bytes,
}

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NumaNode {
    /// Its number.
    pub id: u32,
    /// Its processors; none for far memory.
    pub cpus: Vec<u32>,
    /// Its memory.
    #[schema(value_type = BytesSchema)]
    pub memory: Bytes,
    /// Of that, free.
    #[schema(value_type = BytesSchema)]
    pub free: Bytes,
    /// Distance to each node, in the order of the nodes; 10 is itself.
    pub distances: Vec<u32>,
}

/// Pressure stall information: share of the last ten seconds in which something waited, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Pressure {
    /// For processors.
    pub cpu: Stall,
    /// For memory.
    pub memory: Stall,
    /// For devices.
    pub io: Stall,
}

/// Waiting for one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stall {
    /// Percent of the time in which at least one program waited.
    pub some: f64,
    /// Percent of the time in which all waited.
    pub full: f64,
}

/// Power of the brick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Power {
    /// Watts.
    pub watts: f64,
    /// Where the number comes from.
    pub source: PowerSource,
    /// How it was measured or modelled, as a sentence.
    pub basis: String,
}

/// Where a power reading comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PowerSource {
    /// The processor's own energy counters.
    Rapl,
    /// A model; nothing was measured.
    Modelled,
}
