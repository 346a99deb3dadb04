//! What operations are made of. A step can be done again when it is not known whether it was done, and it can be taken
//! back; so whatever becomes of the agent, an operation is carried on from its journal.

mod dimms;
mod far;
mod life;
mod memory;

pub(crate) use life::last_words;

use std::fmt;
use std::sync::Arc;

use rackmem_api::agent::{Attachment, ElasticBounds};
use rackmem_api::{Problem, VmName};
use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::ground::Ground;
use crate::operation::OnFailure;
use crate::problem::from_store;
use crate::resize;
use crate::store::Effect;

/// What an operation does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    /// The VM that it changes, if it changes one.
    pub(crate) vm: Option<VmName>,
    /// In this order.
    pub(crate) steps: Vec<Step>,
    /// What becomes of what is done if a step fails.
    pub(crate) on_failure: OnFailure,
    /// What comes true when all steps are done.
    pub(crate) when_done: Vec<Effect>,
    /// What comes true when the operation has failed or was cancelled.
    pub(crate) when_undone: Vec<Effect>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// The VM's directory is made.
    PrepareFiles,
    /// QEMU is started, its virtual CPUs standing still.
    StartQemu,
    /// The pager gives the VM far memory. Nothing for a VM whose memory is all local.
    AttachFar,
    /// The virtual CPUs run.
    LetRun,
    /// The virtual CPUs stand still.
    Pause,
    /// The guest is asked to shut down, and waited for.
    ShutDown {
        /// How long it gets.
        patience_s: u32,
    },
    /// QEMU is ended by force.
    EndQemu,
    /// The pager's end is waited for, and with it that the memory servers have their memory back.
    AwaitPager,
    /// The VM's directory is removed.
    RemoveFiles,
    /// The VM's configuration gets another size.
    Reconfigure {
        /// What it has.
        from: (Bytes, Option<Bytes>),
        /// What it will have: memory, and the most it can grow to.
        to: (Bytes, Option<Bytes>),
    },
    /// One step of a resize.
    Resize(resize::Step),
    /// What was asked for is noted, and what the guest did not give is asked of its balloon.
    Settle {
        /// What was asked for before.
        from: Bytes,
        /// What was asked for.
        to: Bytes,
    },
    /// The pager gets another limit.
    LocalLimit {
        /// What it has.
        from: Bytes,
        /// What it will have.
        to: Bytes,
    },
    /// The VM follows its guest, or no longer.
    Elastic {
        /// The bounds before.
        from: Option<ElasticBounds>,
        /// The bounds from now on.
        to: Option<ElasticBounds>,
    },
    /// The VM's attachments change in its configuration.
    Attachments {
        /// What it has.
        from: Vec<Attachment>,
        /// What it will have.
        to: Vec<Attachment>,
    },
    /// The attachments of a VM that runs change: its pager goes on with others.
    Lend {
        /// What it has.
        from: Vec<Attachment>,
        /// What it will have.
        to: Vec<Attachment>,
    },
    /// All of the VM's memory comes home, and its pager ends.
    BringHome,
    /// A memory server is greeted.
    Greet(rackmem_types::ServerAddress),
}

/// A step that was done: what is to be known of it.
pub(crate) type Note = Option<String>;

impl Step {
    /// Whether a cancel may end it half way. What it leaves is found when it is taken back.
    pub(crate) fn is_interruptible(&self) -> bool {
        // A pager that is being started cannot be told from the outside to stop.
        // A wait for the guest to shut down ends itself, and leaves the machine as it was.
        !matches!(
            self,
            Self::AttachFar | Self::BringHome | Self::Lend { .. } | Self::StartQemu | Self::ShutDown { .. }
        )
    }

    /// Does it. What waits for a guest ends as cancelled soon after `cancel`.
    pub(crate) async fn take(
        &self,
        ground: &Arc<Ground>,
        vm: Option<&VmName>,
        cancel: &CancellationToken,
    ) -> Result<Note, Problem> {
        if let Self::Greet(server) = self {
            return crate::servers::free(server).await.map(|_| None);
        }
        let vm = &load(ground, vm).await?;
        match self {
            Self::PrepareFiles => ground.machines.prepare(vm).await.map(|()| None),
            Self::StartQemu => life::start(ground, vm).await,
            Self::AttachFar => far::attach(ground, vm).await,
            Self::LetRun => life::let_run(ground, vm).await,
            Self::Pause => life::pause(ground, vm).await,
            Self::ShutDown { patience_s } => life::shut_down(ground, vm, *patience_s, cancel).await,
            Self::EndQemu => life::end(ground, vm).await,
            Self::AwaitPager => far::await_end(ground, vm).await,
            Self::RemoveFiles => life::remove_files(ground, vm).await,
            Self::Reconfigure { to, .. } => life::reconfigure(ground, vm, *to).await,
            Self::Resize(step) => memory::take(ground, vm, *step).await,
            Self::Settle { to, .. } => memory::settle(ground, vm, *to).await,
            Self::LocalLimit { to, .. } => far::limit(ground, vm, *to).await,
            Self::Elastic { to, .. } => life::elastic(ground, vm, *to).await,
            Self::Attachments { to, .. } => far::attachments(ground, vm, to).await,
            Self::Lend { to, .. } => far::lend(ground, vm, to).await,
            Self::BringHome => far::bring_home(ground, vm).await,
            Self::Greet(_) => Ok(None),
        }
    }

    /// Takes it back, whether or not it was done.
    pub(crate) async fn undo(&self, ground: &Arc<Ground>, vm: Option<&VmName>) -> Result<(), Problem> {
        if matches!(self, Self::Greet(_) | Self::AwaitPager | Self::RemoveFiles) {
            return Ok(());
        }
        let vm = &load(ground, vm).await?;
        match self {
            Self::PrepareFiles => life::remove_files(ground, vm).await,
            Self::StartQemu => life::end(ground, vm).await,
            Self::AttachFar => far::undo_attach(ground, vm).await,
            Self::LetRun => life::undo_let_run(ground, vm).await,
            Self::Pause => life::let_run(ground, vm).await,
            // A guest that is on its way down cannot be called back; whether it runs is seen.
            Self::ShutDown { .. } | Self::EndQemu => Ok(None),
            Self::Reconfigure { from, .. } => life::reconfigure(ground, vm, *from).await,
            Self::Resize(step) => memory::undo(ground, vm, *step).await,
            Self::Settle { from, .. } => memory::unsettle(ground, vm, *from).await,
            Self::LocalLimit { from, .. } => far::limit(ground, vm, *from).await,
            Self::Elastic { from, .. } => life::elastic(ground, vm, *from).await,
            Self::Attachments { from, .. } => far::attachments(ground, vm, from).await,
            Self::Lend { from, .. } => far::lend(ground, vm, from).await,
            Self::BringHome => far::attach(ground, vm).await,
            Self::Greet(_) | Self::AwaitPager | Self::RemoveFiles => Ok(None),
        }
        .map(drop)
    }
}

async fn load(ground: &Ground, vm: Option<&VmName>) -> Result<crate::vm::VmRecord, Problem> {
    let name = vm.ok_or_else(|| crate::problem::invalid("the operation has no virtual machine"))?;
    ground.store.vm(name).await.map_err(from_store)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrepareFiles => write!(f, "prepare the files"),
            Self::StartQemu => write!(f, "start QEMU"),
            Self::AttachFar => write!(f, "attach far memory"),
            Self::LetRun => write!(f, "let the guest run"),
            Self::Pause => write!(f, "pause the guest"),
            Self::ShutDown { .. } => write!(f, "wait for the guest to shut down"),
            Self::EndQemu => write!(f, "end QEMU"),
            Self::AwaitPager => write!(f, "give far memory back"),
            Self::RemoveFiles => write!(f, "remove the files"),
            Self::Reconfigure { to, .. } => write!(f, "configure {} of memory", to.0),
            Self::Resize(step) => step.fmt(f),
            Self::Settle { .. } => write!(f, "see what the guest gave"),
            Self::LocalLimit { to, .. } => write!(f, "set the local limit to {to}"),
            Self::Elastic { to: Some(to), .. } => write!(f, "follow the guest from {} to {}", to.min, to.max),
            Self::Elastic { to: None, .. } => write!(f, "stop to follow the guest"),
            Self::Attachments { .. } => write!(f, "configure the attachments"),
            Self::Lend { .. } => write!(f, "change what far memory the pager uses"),
            Self::BringHome => write!(f, "bring all memory home"),
            Self::Greet(server) => write!(f, "greet the memory server {server}"),
        }
    }
}
