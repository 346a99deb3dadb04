//! What an agent is asked to do with a machine. Each may be asked twice; after an error it may have been done or not.

use std::fmt;

use rackmem_api::agent::{ElasticBounds, StopRequest, VmSpec, kind};
use rackmem_api::{AttachmentId, Generation, VmName};
use rackmem_rack::Name;
use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// An errand to the agent of a compute brick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "errand", rename_all = "kebab-case")]
pub enum Errand {
    /// Make a machine, and start it if it says so. One that is there and is the same was made by this errand.
    Create {
        /// The compute brick.
        brick: Name,
        /// The machine.
        spec: Box<VmSpec>,
    },
    /// Delete that machine in whatever state it is. Another one of its name stays.
    Delete {
        /// The compute brick.
        brick: Name,
        /// The machine.
        spec: Box<VmSpec>,
    },
    /// Start a machine.
    Start {
        /// The compute brick.
        brick: Name,
        /// The machine.
        vm: VmName,
    },
    /// Stop a machine.
    Stop {
        /// The compute brick.
        brick: Name,
        /// The machine.
        vm: VmName,
        /// How.
        how: StopRequest,
    },
    /// Pause a machine; one that is paused already was by this errand.
    Pause {
        /// The compute brick.
        brick: Name,
        /// The machine.
        vm: VmName,
    },
    /// Let a paused machine go on; one that runs does so already.
    Resume {
        /// The compute brick.
        brick: Name,
        /// The machine.
        vm: VmName,
    },
    /// Let a machine follow its guest's need between other bounds, or no longer.
    Elastic {
        /// The compute brick.
        brick: Name,
        /// The machine.
        vm: VmName,
        /// Between which bounds it did, as the books had it.
        from: Option<ElasticBounds>,
        /// Between which bounds it is to.
        to: Option<ElasticBounds>,
    },
    /// Give a machine attachments: their logical attachment.
    Attach {
        /// The compute brick.
        brick: Name,
        /// The machine.
        vm: VmName,
        /// The attachments.
        attachments: Vec<AttachmentId>,
    },
    /// Take attachments from a machine; what it does not have is no mistake.
    Detach {
        /// The compute brick.
        brick: Name,
        /// The machine.
        vm: VmName,
        /// The attachments.
        attachments: Vec<AttachmentId>,
    },
    /// Give the guest another amount of memory.
    Resize {
        /// The compute brick.
        brick: Name,
        /// The machine.
        vm: VmName,
        /// What was asked for before.
        from: Bytes,
        /// What it is to have.
        to: Bytes,
    },
    /// Give the guest the memory back that it had, as far as it goes along: the way back of a resize.
    Restore {
        /// The compute brick.
        brick: Name,
        /// The machine.
        vm: VmName,
        /// What it had.
        to: Bytes,
    },
    /// Do this errand as far as the machine goes along: the way back of what leaves its memory as it is.
    Back {
        /// What brings back what was.
        of: Box<Errand>,
    },
}

impl Errand {
    /// The compute brick whose agent is asked.
    pub fn brick(&self) -> &Name {
        match self {
            Self::Create { brick, .. }
            | Self::Delete { brick, .. }
            | Self::Start { brick, .. }
            | Self::Stop { brick, .. }
            | Self::Pause { brick, .. }
            | Self::Resume { brick, .. }
            | Self::Elastic { brick, .. }
            | Self::Attach { brick, .. }
            | Self::Detach { brick, .. }
            | Self::Resize { brick, .. }
            | Self::Restore { brick, .. } => brick,
            Self::Back { of } => of.brick(),
        }
    }

    /// The kind of the agent's operation, of those that may wait for a guest or for much memory and can be cancelled.
    pub(crate) const fn waits_as(&self) -> Option<&'static str> {
        match self {
            Self::Create { .. } => Some(kind::VM_CREATE),
            Self::Start { .. } => Some(kind::VM_START),
            Self::Stop { .. } => Some(kind::VM_STOP),
            Self::Resize { .. } => Some(kind::VM_RESIZE),
            _ => None,
        }
    }

    /// What undoes it, done or half done. A start or a stop that failed has been undone by the agent.
    pub(crate) fn undo(&self) -> Option<Self> {
        let back = |errand| Self::Back { of: Box::new(errand) };
        Some(match self.clone() {
            Self::Create { brick, spec } => Self::Delete { brick, spec },
            Self::Attach { brick, vm, attachments } => Self::Detach { brick, vm, attachments },
            Self::Resize { brick, vm, from, .. } => Self::Restore { brick, vm, to: from },
            Self::Pause { brick, vm } => back(Self::Resume { brick, vm }),
            Self::Resume { brick, vm } => back(Self::Pause { brick, vm }),
            Self::Elastic { brick, vm, from, to } => back(Self::Elastic { brick, vm, from: to, to: from }),
            Self::Delete { .. }
            | Self::Start { .. }
            | Self::Stop { .. }
            | Self::Detach { .. }
            | Self::Restore { .. }
            | Self::Back { .. } => return None,
        })
    }
}

impl fmt::Display for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |ids: &[AttachmentId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::Create { brick, spec } if spec.start => {
                write!(f, "{brick}: make and start machine '{}'", spec.name)
            }
            Self::Create { brick, spec } => write!(f, "{brick}: make machine '{}'", spec.name),
            Self::Delete { brick, spec } => write!(f, "{brick}: delete machine '{}'", spec.name),
            Self::Start { brick, vm } => write!(f, "{brick}: start machine '{vm}'"),
            Self::Stop { brick, vm, .. } => write!(f, "{brick}: stop machine '{vm}'"),
            Self::Pause { brick, vm } => write!(f, "{brick}: pause machine '{vm}'"),
            Self::Resume { brick, vm } => write!(f, "{brick}: let machine '{vm}' go on"),
            Self::Elastic { brick, vm, to: Some(ElasticBounds { min, max }), .. } => {
                write!(f, "{brick}: let machine '{vm}' follow its guest from {min} to {max}")
            }
            Self::Elastic { brick, vm, to: None, .. } => {
                write!(f, "{brick}: let machine '{vm}' follow its guest no longer")
            }
            Self::Attach { brick, vm, attachments } => {
                write!(f, "{brick}: give {} to machine '{vm}'", names(attachments))
            }
            Self::Detach { brick, vm, attachments } => {
                write!(f, "{brick}: take {} from machine '{vm}'", names(attachments))
            }
            Self::Resize { brick, vm, to, .. } => write!(f, "{brick}: resize machine '{vm}' to {to}"),
            Self::Restore { brick, vm, to } => write!(f, "{brick}: resize machine '{vm}' back to {to}"),
            Self::Back { of } => of.fmt(f),
        }
    }
}

/// An errand that is to be done, with all that has to be known for it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The errand.
    pub errand: Errand,
    /// The controller's reign: agents refuse older ones.
    pub reign: Generation,
    /// The address of the compute brick.
    pub address: Option<String>,
    /// Whoever asked for it does not want it any more: what the agent takes long for is cancelled there.
    pub cancel: CancellationToken,
}

/// What came of an errand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The memory that the guest has now, of a resize: it may have given or taken only part.
    pub size: Option<Bytes>,
    /// What whoever asked should know.
    pub note: Option<String>,
}
