//! What the agent keeps of a VM: what its user wants, and how to find it again. What it does at this moment is asked of
//! the machine.

use std::path::PathBuf;

use rackmem_api::VmName;
use rackmem_api::agent::{ElasticBounds, ElasticDecision, VmSpec};
use rackmem_qemu::ProcessIdentity;
use rackmem_types::{Bytes, ServerAddress};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Decisions of elastic mode that are kept for each VM: what fits on a screen.
const DECISIONS_MAX: usize = 20;

/// A VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VmRecord {
    /// As it was asked for, with what has been changed since.
    pub(crate) spec: VmSpec,
    /// What its user wants it to do.
    pub(crate) wanted: Wanted,
    /// Its process, since it was started last.
    pub(crate) process: Option<ProcessIdentity>,
    /// Set for a VM that somebody else started.
    pub(crate) domain: Option<Domain>,
    /// Set for a VM that was made here and that libvirt runs: what libvirt knows it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uuid: Option<Uuid>,
    /// The size that was asked for last.
    pub(crate) target: Bytes,
    /// Between which sizes it follows its guest.
    pub(crate) elastic: Option<ElasticBounds>,
    /// What was decided for it, newest last.
    pub(crate) decisions: Vec<ElasticDecision>,
    /// Why it ended although it was to run.
    pub(crate) failure: Option<String>,
    /// When it was made.
    pub(crate) created_ms: u64,
    /// When it was started last.
    pub(crate) started_ms: Option<u64>,
}

/// What a VM is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wanted {
    /// Run.
    Running,
    /// Stand still.
    Paused,
    /// Nothing.
    Stopped,
}

/// A VM that somebody else started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Domain {
    /// libvirt's name, where libvirt has it.
    pub(crate) libvirt: Option<String>,
    /// Its QMP socket, where it has one that can be reached.
    pub(crate) qmp: Option<PathBuf>,
}

impl VmRecord {
    /// A VM that is not there yet.
    pub(crate) fn new(spec: VmSpec, created_ms: u64) -> Self {
        Self {
            target: spec.memory,
            spec,
            wanted: Wanted::Stopped,
            process: None,
            domain: None,
            uuid: None,
            elastic: None,
            decisions: Vec::new(),
            failure: None,
            created_ms,
            started_ms: None,
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &VmName {
        &self.spec.name
    }

    /// Its process, if that still runs.
    pub(crate) fn alive(&self) -> Option<ProcessIdentity> {
        self.process.filter(ProcessIdentity::is_alive)
    }

    /// To which it can grow.
    pub(crate) fn memory_max(&self) -> Bytes {
        self.spec.memory_max.unwrap_or(self.spec.memory).max(self.spec.memory)
    }

    /// The memory servers of its far memory: its own, or the agent's; none if all of it is local.
    pub(crate) fn memory_servers<'a>(&'a self, agents: &'a [ServerAddress]) -> &'a [ServerAddress] {
        match self.spec.local {
            None => &[],
            Some(_) if self.spec.memory_servers.is_empty() => agents,
            Some(_) => &self.spec.memory_servers,
        }
    }

    /// How much of this machine's RAM it is promised.
    pub(crate) fn promised(&self) -> Bytes {
        self.spec.local.unwrap_or_else(|| self.memory_max())
    }

    /// Notes a decision, and forgets the oldest beyond what is kept.
    pub(crate) fn decided(&mut self, decision: ElasticDecision) {
        self.decisions.push(decision);
        let excess = self.decisions.len().saturating_sub(DECISIONS_MAX);
        self.decisions.drain(..excess);
    }
}
