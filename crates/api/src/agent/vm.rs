//! Virtual machines: what is asked for, and what is.

use std::path::PathBuf;

use rackmem_types::{Bytes, ServerAddress};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::elastic::ElasticView;
use super::memory::VmMemory;
use crate::class::LatencyClass;
use crate::name::{AttachmentId, VmName};
use crate::operation::OperationId;
use crate::problem::{Problem, ProblemType};
use crate::schema::{BytesSchema, ServerAddressSchema};

/// A virtual machine to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// Its name on this brick.
    pub name: VmName,
    /// Memory that the guest has at its start.
    #[schema(value_type = BytesSchema)]
    pub memory: Bytes,
    /// Memory to which it can grow while it runs; without it the guest cannot grow.
    #[serde(default)]
    #[schema(value_type = Option<BytesSchema>)]
    pub memory_max: Option<Bytes>,
    /// How much of it may be resident in the brick's RAM; without it all of it, and no pager.
    #[serde(default)]
    #[schema(value_type = Option<BytesSchema>)]
    pub local: Option<Bytes>,
    /// Virtual processors.
    #[serde(default = "vcpus_default")]
    #[schema(minimum = 1, maximum = 255, default = 1)]
    pub vcpus: u32,
    /// What it boots.
    pub boot: Boot,
    /// Memory servers that lend its far memory, instead of the agent's own.
    #[serde(default)]
    #[schema(value_type = Vec<ServerAddressSchema>, default = json!([]))]
    pub memory_servers: Vec<ServerAddress>,
    /// Physical attachments that lend its far memory; each belongs to this machine from then on.
    #[serde(default)]
    #[schema(default = json!([]))]
    pub attachments: Vec<AttachmentId>,
    /// Plug grown memory into a NUMA node of its own, without processors, with the distance of this class.
    #[serde(default)]
    pub far_node: Option<LatencyClass>,
    /// By what it grows; without it by virtio-mem, where its QEMU has that, else by DIMMs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
    /// What runs it.
    #[serde(default)]
    pub driver: Driver,
    /// Whether to start it when it is made.
    #[serde(default = "start_default")]
    #[schema(default = true)]
    pub start: bool,
}

const fn vcpus_default() -> u32 {
    1
}

const fn start_default() -> bool {
    true
}

impl VmSpec {
    /// Whether the machine makes sense by itself, on whatever brick.
    pub fn check(&self) -> Result<(), Problem> {
        let Self { memory, memory_max, local, vcpus, boot, attachments, growth, .. } = self;
        let detail = if *memory < MEMORY_MIN {
            format!("memory {memory} is too little: no guest starts with less than {MEMORY_MIN}")
        } else if memory_max.is_some_and(|max| max < *memory) {
            format!("memory_max is less than memory ({memory}): let it be at least as much, or leave it out")
        } else if [Some(*memory), *memory_max, *local].into_iter().flatten().any(|amount| amount > MEMORY_MAX)
        {
            format!("no machine can have more than {MEMORY_MAX}")
        } else if let Some((name, amount)) =
            [("memory", Some(*memory)), ("memory_max", *memory_max)].into_iter().find_map(|(name, amount)| {
                Some((name, amount.filter(|of| !of.0.is_multiple_of(MEMORY_BLOCK.0))?))
            })
        {
            let below = (amount.0 - amount.0 % MEMORY_BLOCK.0) >> 20;
            format!(
                "{name} of {} bytes is no multiple of {MEMORY_BLOCK}: give {below}MiB or {}MiB",
                amount.0,
                below + (MEMORY_BLOCK.0 >> 20)
            )
        } else if *growth == Some(Growth::Dimm)
            && memory_max.is_some_and(|max| max > *memory && max.0 - memory.0 < DIMM_MIN.0)
        {
            format!(
                "with DIMMs a machine grows by {DIMM_MIN} at a time: let memory_max be at least {DIMM_MIN} more than \
                 memory"
            )
        } else if *local == Some(Bytes(0)) {
            "local is 0: a guest needs some resident memory, give at least a few MiB".to_owned()
        } else if !(1..=VCPUS_MAX).contains(vcpus) {
            format!("vcpus {vcpus}: give 1 to {VCPUS_MAX}")
        } else if boot.kernel.is_none() && boot.disks.is_empty() {
            "there is nothing to boot: give boot.kernel or boot.disks".to_owned()
        } else if boot.disks.len() > 1 {
            "a machine has one disk here: give one, and attach others from inside the guest".to_owned()
        } else if boot.kernel.is_none() && (boot.initrd.is_some() || boot.append.is_some()) {
            "boot.initrd and boot.append need boot.kernel".to_owned()
        } else if let Some(twice) =
            attachments.iter().enumerate().find(|(i, id)| attachments[..*i].contains(id))
        {
            format!("attachment '{}' is given twice", twice.1)
        } else {
            return Ok(());
        };
        Err(Problem::new(ProblemType::Invalid, detail))
    }
}

/// Least memory that a machine starts with: below this not even a kernel without a file system does.
pub const MEMORY_MIN: Bytes = Bytes(32 << 20);

/// Machines start with, and grow to, whole blocks of this size: what virtio-mem plugs at a time.
const MEMORY_BLOCK: Bytes = Bytes(2 << 20);

/// The smallest DIMM: Linux puts memory on line in blocks of this size on x86-64.
pub const DIMM_MIN: Bytes = Bytes(128 << 20);

/// Most memory of a machine: what a far space of 2³² slots can hold.
pub const MEMORY_MAX: Bytes = Bytes(16 << 40);

/// Most virtual processors of a machine: what QEMU's q35 takes without an interrupt remapper.
const VCPUS_MAX: u32 = 255;

/// What a machine boots: a kernel, a disk, or both. Paths are of the brick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Boot {
    /// Linux kernel image.
    #[schema(value_type = Option<String>, example = "/boot/vmlinuz")]
    pub kernel: Option<PathBuf>,
    /// Initial file system of the kernel.
    #[schema(value_type = Option<String>, example = "/boot/initrd.img")]
    pub initrd: Option<PathBuf>,
    /// Words for the kernel's command line, after the agent's own.
    pub append: Option<String>,
    /// Disk images, qcow2 or raw, the first one to boot from.
    #[schema(value_type = Vec<String>)]
    pub disks: Vec<PathBuf>,
    /// Cloud-init seed: an ISO image or a directory with `user-data` and `meta-data`.
    #[schema(value_type = Option<String>)]
    pub cloud_init: Option<PathBuf>,
}

/// By what a machine's memory grows while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Growth {
    /// One virtio-mem device, of which the guest has more or less, in blocks of 2 MiB.
    VirtioMem,
    /// DIMMs, for guests without a driver for virtio-mem: whole ones of 128 MiB or more come and go.
    Dimm,
}

/// What runs a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// QEMU, spoken to by QMP.
    #[default]
    Qemu,
    /// libvirt.
    Libvirt,
}

/// A virtual machine as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VmView {
    /// Its name.
    pub name: VmName,
    /// What it is doing.
    pub state: VmState,
    /// Why it is in this state, where that is not plain: QEMU's last words, why it waits.
    pub reason: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
    /// What runs it.
    pub driver: Driver,
    /// Process id, while there is one.
    pub pid: Option<u32>,
    /// Virtual processors.
    pub vcpus: u32,
    /// What it boots; unknown for machines that somebody else started.
    pub boot: Option<Boot>,
    /// How its processors are run.
    pub accelerator: Option<Accelerator>,
    /// Version of QEMU, while it runs.
    pub qemu: Option<String>,
    /// Its memory: how much, and where.
    pub memory: VmMemory,
    /// Its pager, where it has far memory.
    pub pager: Option<PagerView>,
    /// How it follows the guest's need, where it does.
    pub elastic: Option<ElasticView>,
    /// Physical attachments that belong to it.
    pub attachments: Vec<AttachmentId>,
    /// The operation that is changing it now.
    pub operation: Option<OperationId>,
    /// What its user should know, newest last.
    pub warnings: Vec<String>,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// When it was started last, milliseconds since 1970.
    pub started_ms: Option<u64>,
}

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VmState {
    /// It is being made.
    Creating,
    /// It exists and does not run.
    Stopped,
    /// It runs.
    Running,
    /// Somebody paused it.
    Paused,
    /// It waits for its pager.
    Waiting,
    /// It ended by itself or never came up; `reason` says why.
    Failed,
    /// It is being deleted.
    Deleting,
}

/// Where a machine comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// This agent made it.
    Created,
    /// Somebody else started it; this agent gave it far memory.
    Attached,
}

/// How a machine's processors are run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Accelerator {
    /// Which one.
    pub kind: AcceleratorKind,
    /// Why this one, as a sentence, for example why KVM is not used.
    pub reason: String,
}

/// Ways to run a guest's processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AcceleratorKind {
    /// By the processor itself, through KVM.
    Kvm,
    /// By translation, in software.
    Tcg,
    /// Not at all: a simulated machine.
    Simulated,
}

/// A machine's pager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PagerView {
    /// Its process id, while there is one.
    pub pid: Option<u32>,
    /// How it is.
    pub state: PagerState,
}

/// How a pager is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PagerState {
    /// It serves.
    Up,
    /// It died; a successor is being started.
    Restarting,
    /// It died and no successor could be started; the guest waits.
    Down,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_that_make_no_sense_are_refused_with_the_reason() {
        let good = r#"{"name":"a","memory":1073741824,"boot":{"kernel":"/k"}}"#;
        type Spoil = fn(&mut VmSpec);
        let check = |change: Spoil| {
            let mut spec: VmSpec = serde_json::from_str(good).unwrap();
            change(&mut spec);
            spec.check().map_err(|problem| problem.detail)
        };
        assert_eq!(check(|_| {}), Ok(()));
        let bad: [(Spoil, &str); 12] = [
            (|spec| spec.memory = Bytes(4096), "too little"),
            (|spec| spec.memory = Bytes(u64::MAX), "no machine"),
            (|spec| spec.memory_max = Some(Bytes(1 << 29)), "memory_max"),
            (|spec| spec.local = Some(Bytes(0)), "local"),
            (|spec| spec.memory = Bytes((1 << 30) + 1), "give 1024MiB or 1026MiB"),
            (
                |spec| spec.memory_max = Some(Bytes((1 << 30) + 4096)),
                "memory_max of 1073745920 bytes is no multiple",
            ),
            (
                |spec| {
                    spec.growth = Some(Growth::Dimm);
                    spec.memory_max = Some(Bytes((1 << 30) + (64 << 20)));
                },
                "at least 128MiB more",
            ),
            (|spec| spec.boot.disks = vec!["/a".into(), "/b".into()], "one disk"),
            (|spec| spec.vcpus = 256, "vcpus"),
            (|spec| spec.vcpus = 0, "vcpus"),
            (|spec| spec.boot.kernel = None, "nothing to boot"),
            (|spec| spec.attachments = vec!["m".parse().unwrap(), "m".parse().unwrap()], "twice"),
        ];
        for (change, words) in bad {
            let detail = check(change).unwrap_err();
            assert!(detail.contains(words), "{detail}");
        }
    }
}
