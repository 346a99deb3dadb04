//! Virtual machines over the rack: what is asked for, and what is. The controller chooses the brick and reserves the memory; the
//! brick's agent runs the machine.

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::agent::{Boot, Driver, ElasticBounds, Growth, MEMORY_MIN, ResizeRequest, VmSpec, VmView};
use crate::class::LatencyClass;
use crate::name::{AttachmentId, VmName};
use crate::operation::OperationId;
use crate::problem::{Problem, ProblemType};
use crate::schema::BytesSchema;

/// A virtual machine to be made somewhere in the racks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineNew {
    /// Its name, the only one of this controller.
    pub name: VmName,
    /// The project that it counts against; a member's own if it is left out.
    #[serde(default)]
    pub project: Option<String>,
    /// The compute brick; without it the one that fits best.
    #[serde(default)]
    pub compute: Option<String>,
    /// Memory that the guest has at its start.
    #[schema(value_type = BytesSchema)]
    pub memory: Bytes,
    /// Memory to which it can grow while it runs; without it the guest cannot grow.
    #[serde(default)]
    #[schema(value_type = Option<BytesSchema>)]
    pub memory_max: Option<Bytes>,
    /// How much of it may be resident in the brick's RAM; without it a quarter. With the class `local` it is left out.
    #[serde(default)]
    #[schema(value_type = Option<BytesSchema>)]
    pub local: Option<Bytes>,
    /// How far away the rest may be; `local` for a machine without far memory.
    pub class: LatencyClass,
    /// How many memory bricks the rest may be spread over.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 16)]
    pub spread: Option<u8>,
    /// Virtual processors, each of them a core of the brick.
    #[serde(default = "vcpus_default")]
    #[schema(minimum = 1, maximum = 255, default = 1)]
    pub vcpus: u32,
    /// What it boots. Paths are of the brick; a member's lie where the controller's `--images` says.
    pub boot: Boot,
    /// Plug grown memory into a NUMA node of its own, without processors, with the distance of this class.
    #[serde(default)]
    pub far_node: Option<LatencyClass>,
    /// By what it grows; without it by virtio-mem, where its QEMU has that, else by DIMMs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
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

/// Of a machine that says nothing of it, this part may be resident: what policies are measured at, too.
const LOCAL_PART: u64 = 4;

impl MachineNew {
    /// How much may be resident in the brick's RAM.
    pub fn local(&self) -> Bytes {
        match self.class {
            LatencyClass::Local => self.memory,
            _ => {
                self.local.unwrap_or(Bytes((self.memory.0 / LOCAL_PART).max(MEMORY_MIN.0).min(self.memory.0)))
            }
        }
    }

    /// Far memory that a guest of `size` takes: a place for each of its pages, because one that comes home keeps its place, so
    /// that it need not be sent again while it is unchanged.
    pub fn far(&self, size: Bytes) -> Bytes {
        if self.class == LatencyClass::Local { Bytes(0) } else { size }
    }

    /// What it can grow to while it runs.
    pub fn memory_max(&self) -> Bytes {
        self.memory_max.unwrap_or(self.memory)
    }

    /// What the agent is asked to make, with these attachments for its far memory.
    pub fn spec(&self, attachments: Vec<AttachmentId>) -> VmSpec {
        VmSpec {
            name: self.name.clone(),
            memory: self.memory,
            memory_max: self.memory_max,
            local: (self.class != LatencyClass::Local).then(|| self.local()),
            vcpus: self.vcpus,
            boot: self.boot.clone(),
            memory_servers: Vec::new(),
            attachments,
            far_node: self.far_node,
            growth: self.growth,
            driver: Driver::Qemu,
            start: self.start,
        }
    }

    /// Whether it makes sense by itself, in whatever racks.
    pub fn check(&self) -> Result<(), Problem> {
        let invalid = |detail: String| Err(Problem::new(ProblemType::Invalid, detail));
        if self.spread.is_some_and(|spread| !(1..=16).contains(&spread)) {
            return invalid("'spread': give 1 to 16 memory bricks".to_owned());
        }
        if self.project.as_ref().is_some_and(|name| name.is_empty() || name.len() > 63) {
            return invalid("'project': write 1 to 63 characters".to_owned());
        }
        if self.class == LatencyClass::Local && self.local.is_some() {
            return invalid(
                "a machine of the class local has all its memory in the brick: leave local out, or give another class"
                    .to_owned(),
            );
        }
        if self.class != LatencyClass::Local && self.local.is_some_and(|local| local >= self.memory) {
            return invalid(format!(
                "local leaves nothing far of memory {}: give less, or the class local",
                self.memory
            ));
        }
        self.spec(Vec::new()).check()
    }

    /// Whether such a machine can get this memory while it runs.
    pub fn check_size(&self, memory: Bytes) -> Result<(), Problem> {
        let request = ResizeRequest { memory: Some(memory), ..ResizeRequest::default() };
        request.check(self.memory_max())
    }
}

/// How much memory a machine shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineResize {
    /// Memory of the guest, more or less than it has.
    #[schema(value_type = BytesSchema)]
    pub memory: Bytes,
}

/// A virtual machine as the controller has it in its books.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MachineView {
    /// Its name.
    pub name: VmName,
    /// The project that it counts against.
    pub project: String,
    /// What it is doing.
    pub state: MachineState,
    /// Why it is in this state, where that is not plain.
    pub reason: Option<String>,
    /// The compute brick that runs it; none before one is chosen.
    pub compute: Option<String>,
    /// The reservation that it owns, of cores, local and far memory. It ends with the machine.
    pub reservation: u64,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory that was asked for last.
    #[schema(value_type = BytesSchema)]
    pub memory: Bytes,
    /// To which it can grow while it runs.
    #[schema(value_type = BytesSchema)]
    pub memory_max: Bytes,
    /// How much of it may be resident in the brick's RAM.
    #[schema(value_type = BytesSchema)]
    pub local: Bytes,
    /// How far away the rest may be.
    pub class: LatencyClass,
    /// Far memory that is reserved for it.
    #[schema(value_type = BytesSchema)]
    pub far: Bytes,
    /// The memory bricks that lend it.
    pub memory_bricks: Vec<String>,
    /// Those of them whose memory server has lost what it lent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory_lost: Vec<String>,
    /// Between which sizes it follows its guest's need, if it does.
    pub elastic: Option<ElasticBounds>,
    /// The operation that is changing it now.
    pub operation: Option<OperationId>,
    /// When it was asked for, milliseconds since 1970.
    pub created_ms: u64,
    /// What its agent says of it now. Not in lists, and not while the agent cannot be reached.
    pub machine: Option<VmView>,
}

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    /// A brick is chosen, memory is reserved, it is made.
    Creating,
    /// It runs.
    Running,
    /// Somebody paused it.
    Paused,
    /// It exists and does not run.
    Stopped,
    /// It ended by itself, or its agent does not have it any more; `reason` says which.
    Failed,
    /// It is being deleted.
    Deleting,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(change: impl FnOnce(&mut MachineNew)) -> MachineNew {
        let text = r#"{"name":"web1","memory":1073741824,"class":"rack","boot":{"kernel":"/k"}}"#;
        let mut new = serde_json::from_str(text).unwrap();
        change(&mut new);
        new
    }

    #[test]
    fn a_quarter_is_local_where_nothing_is_said() {
        let far = new(|_| {});
        assert_eq!((far.local(), far.far(far.memory)), (Bytes(1 << 28), Bytes(1 << 30)));
        let local = new(|new| new.class = LatencyClass::Local);
        assert_eq!((local.local(), local.far(local.memory)), (Bytes(1 << 30), Bytes(0)));
        assert_eq!(local.spec(Vec::new()).local, None);
    }

    #[test]
    fn machines_that_make_no_sense_are_refused() {
        assert_eq!(new(|_| {}).check(), Ok(()));
        for (bad, words) in [
            (new(|new| new.local = Some(new.memory)), "nothing far"),
            (
                new(|new| (new.class, new.local) = (LatencyClass::Local, Some(Bytes(1 << 20)))),
                "leave local out",
            ),
            (new(|new| new.boot.kernel = None), "nothing to boot"),
            (new(|new| new.spread = Some(0)), "spread"),
        ] {
            let problem = bad.check().unwrap_err();
            assert!(problem.detail.contains(words), "{problem}");
        }
        assert!(new(|_| {}).check_size(Bytes(2 << 30)).is_err(), "it was not made to grow");
        assert!(new(|new| new.memory_max = Some(Bytes(4 << 30))).check_size(Bytes(2 << 30)).is_ok());
    }
}
