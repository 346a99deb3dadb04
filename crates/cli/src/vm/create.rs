//! `rackmem vm create`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{bail, ensure};
use clap::Args;
use rackmem_api::agent::{Boot, Driver, VmSpec};
use rackmem_api::controller::MachineNew;
use rackmem_api::{AttachmentId, LatencyClass, VmName};
use rackmem_types::{Bytes, ServerAddress};

use super::AgentOptions;
use super::whom::Whom;
use crate::progress::finish;

/// Make a machine and start it
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Its name
    pub(crate) name: VmName,
    /// Memory that the guest starts with, for example 4GiB
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Bytes,
    /// Memory to which it can grow while it runs
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_max: Option<Bytes>,
    /// How much of it may be in the brick's RAM; the rest is far (default: all of it on an agent, a quarter over the racks)
    #[arg(long, value_name = "SIZE")]
    pub(crate) local: Option<Bytes>,
    /// Virtual processors
    #[arg(long, value_name = "COUNT", default_value = "1")]
    pub(crate) vcpus: u32,
    /// A kernel to boot
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// The kernel's initial file system
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initrd: Option<PathBuf>,
    /// Words for the kernel's command line
    #[arg(long, value_name = "WORDS", requires = "kernel", allow_hyphen_values = true)]
    pub(crate) append: Option<String>,
    /// A disk image to boot, qcow2 or raw
    #[arg(long, value_name = "FILE")]
    pub(crate) disk: Vec<PathBuf>,
    /// Cloud-init seed: an image, or a directory with user-data and meta-data
    #[arg(long, value_name = "PATH")]
    pub(crate) cloud_init: Option<PathBuf>,
    /// A memory server for its far memory, instead of the agent's; repeat it to stripe over several
    #[arg(long = "memory-server", value_name = "ADDRESS")]
    pub(crate) memory_servers: Vec<ServerAddress>,
    /// A physical attachment that lends its far memory
    #[arg(long = "attachment", value_name = "ID")]
    pub(crate) attachments: Vec<AttachmentId>,
    /// Put memory that it grows by into a NUMA node of its own, as far as this: tray, rack or interrack
    #[arg(long, value_name = "CLASS", requires = "memory_max")]
    pub(crate) far_node: Option<LatencyClass>,
    /// By what it grows (default: virtio-mem, where QEMU has it)
    #[arg(long, value_enum, value_name = "DEVICE", requires = "memory_max")]
    pub(crate) growth: Option<Growth>,
    /// How far away the rest may be, for a controller, which chooses the brick: local, tray, rack or interrack (default: rack)
    #[arg(long, help_heading = "Over the racks")]
    pub(crate) class: Option<LatencyClass>,
    /// The compute brick, or 'any'
    #[arg(long, value_name = "BRICK", help_heading = "Over the racks")]
    pub(crate) compute: Option<String>,
    /// Spread the rest over so many memory bricks at most (default: 4)
    #[arg(long, value_name = "N", help_heading = "Over the racks")]
    pub(crate) spread: Option<u8>,
    /// The project that it counts against (default: yours)
    #[arg(long, help_heading = "Over the racks")]
    pub(crate) project: Option<String>,
    /// What runs it
    #[arg(long, value_enum, value_name = "DRIVER", default_value = "qemu")]
    pub(crate) driver: MachineDriver,
    /// Do not start it
    #[arg(long)]
    pub(crate) no_start: bool,
}

/// How a compute brick is left to the controller.
const ANY: &str = "any";

/// What a machine is run by.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum MachineDriver {
    /// The agent itself starts QEMU
    Qemu,
    /// A domain of libvirt's
    Libvirt,
}

impl From<MachineDriver> for Driver {
    fn from(driver: MachineDriver) -> Self {
        match driver {
            MachineDriver::Qemu => Self::Qemu,
            MachineDriver::Libvirt => Self::Libvirt,
        }
    }
}

/// What memory is plugged as.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Growth {
    /// One device, blocks of 2 MiB
    VirtioMem,
    /// Whole DIMMs, for guests without a driver for virtio-mem
    Dimm,
}

impl From<Growth> for rackmem_api::agent::Growth {
    fn from(growth: Growth) -> Self {
        match growth {
            Growth::VirtioMem => Self::VirtioMem,
            Growth::Dimm => Self::Dimm,
        }
    }
}

impl Arguments {
    pub(crate) async fn run(&self, agent: &AgentOptions) -> anyhow::Result<ExitCode> {
        let spec = self.spec()?;
        let client = agent.changing().await?;
        let operation = client.vm_create(&spec).await?;
        let done = if self.no_start { "made" } else { "runs" };
        finish(agent.telling(), &client, operation, &format!("{}: {done}", self.name)).await
    }

    /// Whether an option says that a controller is meant.
    pub(crate) fn is_over_racks(&self) -> bool {
        self.class.is_some() || self.compute.is_some() || self.spread.is_some() || self.project.is_some()
    }

    /// What a controller is asked for.
    pub(crate) fn over_racks(&self) -> anyhow::Result<MachineNew> {
        ensure!(
            self.memory_servers.is_empty() && self.attachments.is_empty(),
            "the controller chooses the memory servers: leave out --memory-server and --attachment, or ask an agent with --agent"
        );
        ensure!(
            matches!(self.driver, MachineDriver::Qemu),
            "over the racks, agents run machines by QEMU themselves: leave out --driver, or ask an agent with --agent"
        );
        let VmSpec { name, memory, memory_max, local, vcpus, boot, far_node, growth, start, .. } =
            self.spec()?;
        let compute = self.compute.clone().filter(|brick| brick != ANY);
        let class = self.class.unwrap_or(LatencyClass::Rack);
        let (project, spread) = (self.project.clone(), self.spread);
        let new = MachineNew {
            name,
            project,
            compute,
            memory,
            memory_max,
            local,
            class,
            spread,
            vcpus,
            boot,
            far_node,
            growth,
            start,
        };
        match new.check() {
            Ok(()) => Ok(new),
            Err(problem) => bail!(problem.detail),
        }
    }

    fn spec(&self) -> anyhow::Result<VmSpec> {
        // The agent has another working directory, and may be on another machine.
        let absolute = |path: &PathBuf| std::path::absolute(path);
        let one = |path: &Option<PathBuf>| path.as_ref().map(absolute).transpose();
        let boot = Boot {
            kernel: one(&self.kernel)?,
            initrd: one(&self.initrd)?,
            append: self.append.clone(),
            disks: self.disk.iter().map(absolute).collect::<Result<_, _>>()?,
            cloud_init: one(&self.cloud_init)?,
        };
        Ok(VmSpec {
            name: self.name.clone(),
            memory: self.memory,
            memory_max: self.memory_max,
            local: self.local,
            vcpus: self.vcpus,
            boot,
            memory_servers: self.memory_servers.clone(),
            attachments: self.attachments.clone(),
            far_node: self.far_node,
            growth: self.growth.map(Into::into),
            driver: self.driver.into(),
            start: !self.no_start,
        })
    }
}
