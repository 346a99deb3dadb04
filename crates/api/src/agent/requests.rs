//! Smaller requests and what they are answered with.

use rackmem_types::{Bytes, ServerAddress};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::name::{AttachmentId, VmName};
use crate::problem::{Problem, ProblemType};
use crate::schema::{BytesSchema, ServerAddressSchema};

/// Kinds of the agent's operations.
pub mod kind {
    /// A machine is made.
    pub const VM_CREATE: &str = "vm.create";
    /// A machine is deleted.
    pub const VM_DELETE: &str = "vm.delete";
    /// A machine is started.
    pub const VM_START: &str = "vm.start";
    /// A machine is stopped.
    pub const VM_STOP: &str = "vm.stop";
    /// A machine is paused.
    pub const VM_PAUSE: &str = "vm.pause";
    /// A machine goes on.
    pub const VM_RESUME: &str = "vm.resume";
    /// A machine's memory is changed.
    pub const VM_RESIZE: &str = "vm.resize";
    /// A machine begins to follow its guest's need, or ends to.
    pub const VM_ELASTIC: &str = "vm.elastic";
    /// A machine gets a physical attachment.
    pub const VM_ATTACH: &str = "vm.attach";
    /// A machine gives a physical attachment back.
    pub const VM_DETACH: &str = "vm.detach";
    /// A machine gets other physical attachments.
    pub const VM_ATTACHMENTS: &str = "vm.attachments";
    /// A domain that somebody else started gets far memory.
    pub const DOMAIN_ATTACH: &str = "domain.attach";
    /// A domain that somebody else started gets all its memory back.
    pub const DOMAIN_DETACH: &str = "domain.detach";
    /// A physical attachment is made.
    pub const ATTACHMENT_CREATE: &str = "attachment.create";
    /// A physical attachment is removed.
    pub const ATTACHMENT_DELETE: &str = "attachment.delete";
}

/// How to stop a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StopRequest {
    /// Turn it off without asking the guest.
    pub force: bool,
    /// Seconds that the guest gets to shut down before the operation fails; 60 without it.
    #[schema(maximum = 3600)]
    pub timeout_s: Option<u32>,
}

/// Seconds that a guest gets to shut down when no time is given.
const STOP_DEFAULT_S: u32 = 60;

/// Longest time that a guest gets to shut down: who waits for longer has forgotten about it.
const STOP_MAX_S: u32 = 3600;

impl StopRequest {
    /// Whether the time is one that a guest may get.
    pub fn check(&self) -> Result<(), Problem> {
        match self.timeout_s {
            Some(timeout) if timeout > STOP_MAX_S => {
                let detail = format!("timeout_s {timeout} is too long: give at most {STOP_MAX_S}");
                Err(Problem::new(ProblemType::Invalid, detail))
            }
            _ => Ok(()),
        }
    }

    /// Seconds that the guest gets.
    pub fn timeout_s(&self) -> u32 {
        self.timeout_s.unwrap_or(STOP_DEFAULT_S)
    }
}

/// Far memory for a domain that somebody else started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DomainAttach {
    /// How much may stay resident in the brick's RAM.
    #[schema(value_type = BytesSchema)]
    pub local: Bytes,
    /// Name in the agent's list; without it the domain's own, or `pid-N`.
    #[serde(default)]
    pub name: Option<VmName>,
    /// Memory servers that lend its far memory, instead of the agent's own.
    #[serde(default)]
    #[schema(value_type = Vec<ServerAddressSchema>, default = json!([]))]
    pub memory_servers: Vec<ServerAddress>,
    /// Physical attachments that lend its far memory.
    #[serde(default)]
    #[schema(default = json!([]))]
    pub attachments: Vec<AttachmentId>,
}

/// Which part of a machine's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Whose words.
    #[param(inline)]
    pub source: LogSource,
    /// Only so many bytes from its end; 64 KiB without it.
    #[param(nullable = false, maximum = 1_048_576)]
    pub tail: Option<u32>,
}

/// Bytes of a log when nothing is asked for.
const LOG_BYTES_DEFAULT: u32 = 64 << 10;

/// Bytes of a log at most in one answer.
const LOG_BYTES_MAX: u32 = 1 << 20;

impl LogQuery {
    /// Whether so much may be asked for at one time.
    pub fn check(&self) -> Result<(), Problem> {
        match self.tail {
            Some(tail) if tail > LOG_BYTES_MAX => {
                let detail = format!("tail {tail} is too much for one answer: give at most {LOG_BYTES_MAX}");
                Err(Problem::new(ProblemType::Malformed, detail))
            }
            _ => Ok(()),
        }
    }

    /// How many bytes from the end.
    pub fn tail_bytes(&self) -> usize {
        self.tail.unwrap_or(LOG_BYTES_DEFAULT) as usize
    }
}

/// Whose words a log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogSource {
    /// The guest's serial console.
    #[default]
    Console,
    /// QEMU's own.
    Qemu,
    /// The pager's.
    Pager,
}

/// Which page to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WatchQuery {
    /// Guest-physical address of a byte in the page.
    #[param(maximum = 9_007_199_254_740_991_u64)]
    pub address: u64,
}

/// One access to a watched page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Access {
    /// Time since the watch began, in microseconds.
    pub at_us: u64,
    /// Thread of the machine's process that touched the page.
    pub thread: u32,
    /// The guest-physical address that it touched.
    pub address: u64,
    /// Whether it wrote.
    pub write: bool,
}
