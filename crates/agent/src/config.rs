//! What an agent is told when it starts.

use std::ffi::OsString;
use std::path::PathBuf;

use rackmem_qemu::AcceleratorKind;
use rackmem_types::{Bytes, ServerAddress};

use crate::lender::Lender;

/// An agent's configuration.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Where it keeps its state and the VMs' files. Absolute.
    pub state: PathBuf,
    /// Where the pagers' control sockets are.
    pub runtime: PathBuf,
    /// The `rackmem` program, which starts pagers.
    pub program: PathBuf,
    /// The QEMU program.
    pub qemu: PathBuf,
    /// The libvirt that runs VMs which are made for it, and whose domains can be given far memory, as a connection URI.
    pub libvirt: String,
    /// By what it runs guests; the best that works, if it is not said.
    pub accelerator: Option<AcceleratorKind>,
    /// Memory servers that lend far memory where a VM names none.
    pub memory_servers: Vec<ServerAddress>,
    /// How pagers prove themselves to memory servers, as options of `rackmem attach`.
    pub far_options: Vec<OsString>,
    /// RAM that may be promised to VMs; without it, what this machine has.
    pub pool: Option<Bytes>,
    /// The controller that lends its machines more far memory.
    pub lender: Option<Lender>,
}
