//! The state of a simulated brick: a pure state machine. Time, identities and randomness come from outside.
//!
//! A command is judged and begun by [`Brick::accept`] and goes on in steps, which [`Brick::settle`] does when their time
//! has come. What one operation changes of one machine is undone by putting back what the machine was before: nothing
//! else can have changed it meanwhile.

mod attachments;
mod command;
mod effect;
mod elastic;
mod operations;
mod plan;
mod view;
mod vm;

use std::collections::BTreeMap;

use rackmem_api::agent::Attachment;
use rackmem_api::{AttachmentId, Event, Generation, Problem, VmName};
use rackmem_types::Bytes;

use crate::config::SimConfig;
use crate::random::Random;

pub(crate) use command::Command;
pub(crate) use operations::Operations;
pub(crate) use vm::SimVm;

/// A simulated brick.
#[derive(Clone, Debug)]
pub(crate) struct Brick {
    pub(crate) config: SimConfig,
    pub(crate) generation: Generation,
    pub(crate) vms: BTreeMap<VmName, SimVm>,
    pub(crate) attachments: BTreeMap<AttachmentId, SimAttachment>,
    pub(crate) operations: Operations,
    /// What happened since it was asked last; the edge numbers and publishes it.
    pub(crate) happened: Vec<Event>,
    random: Random,
    next_pid: u32,
}

/// An entry of the RMC table. Which machine has it is known to the machine.
#[derive(Clone, Debug)]
pub(crate) struct SimAttachment {
    pub(crate) entry: Attachment,
    pub(crate) created_ms: u64,
}

/// First process id of a simulated machine.
const PID_FIRST: u32 = 100_000;

impl Brick {
    pub(crate) fn new(config: SimConfig) -> Self {
        let random = Random::new(config.seed);
        Self {
            config,
            generation: Generation::default(),
            vms: BTreeMap::new(),
            attachments: BTreeMap::new(),
            operations: Operations::default(),
            happened: Vec::new(),
            random,
            next_pid: PID_FIRST,
        }
    }

    pub(crate) fn vm(&self, name: &VmName) -> Result<&SimVm, Problem> {
        self.vms.get(name).ok_or_else(|| Problem::not_found("machine", name))
    }

    pub(crate) fn attachment(&self, id: &AttachmentId) -> Result<&SimAttachment, Problem> {
        self.attachments.get(id).ok_or_else(|| Problem::not_found("attachment", id))
    }

    /// The machine that has the attachment.
    pub(crate) fn owner(&self, id: &AttachmentId) -> Option<&VmName> {
        self.vms.values().find(|vm| vm.attachments.contains(id)).map(|vm| &vm.name)
    }

    /// Resident memory that is promised to all machines but `except`.
    pub(crate) fn promised_local(&self, except: Option<&VmName>) -> Bytes {
        Bytes(self.others(except).map(|vm| vm.promised.local.0).sum())
    }

    /// Memory of the agent's own memory servers that is promised to all machines but `except`.
    pub(crate) fn promised_far(&self, except: Option<&VmName>) -> Bytes {
        Bytes(self.others(except).map(|vm| self.beyond(vm.promised.far, &vm.attachments).0).sum())
    }

    /// What does not fit into these attachments, and is for the agent's own memory servers.
    pub(crate) fn beyond(&self, far: Bytes, attachments: &[AttachmentId]) -> Bytes {
        Bytes(far.0.saturating_sub(self.attached(attachments).0))
    }

    /// When something is to be done next without being asked.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.operations.next_due().into_iter().chain(self.next_decision()).min()
    }

    fn others(&self, except: Option<&VmName>) -> impl Iterator<Item = &SimVm> {
        self.vms.values().filter(move |vm| Some(&vm.name) != except)
    }

    /// Far memory of these attachments.
    pub(crate) fn attached(&self, ids: &[AttachmentId]) -> Bytes {
        let found = ids.iter().filter_map(|id| self.attachments.get(id));
        Bytes(found.map(|attachment| attachment.entry.size().0).sum())
    }

    fn pid(&mut self) -> u32 {
        self.next_pid += 1;
        self.next_pid
    }

    fn happen(&mut self, now: u64, kind: &str, target: impl Into<String>, detail: impl Into<String>) {
        let (kind, target, detail) = (kind.to_owned(), target.into(), detail.into());
        self.happened.push(Event { id: 0, at_ms: now, kind, target, detail, operation: None });
    }
}

#[cfg(test)]
mod tests;
