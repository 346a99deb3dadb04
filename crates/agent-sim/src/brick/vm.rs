//! A simulated machine.

use rackmem_api::agent::{Boot, Driver, ElasticView, Origin, VmSpec, VmState};
use rackmem_api::{AttachmentId, VmName};
use rackmem_types::{Bytes, ServerAddress};

/// A simulated machine.
#[derive(Clone, Debug)]
pub(crate) struct SimVm {
    pub(crate) name: VmName,
    pub(crate) state: VmState,
    pub(crate) reason: Option<String>,
    pub(crate) origin: Origin,
    pub(crate) driver: Driver,
    pub(crate) pid: Option<u32>,
    pub(crate) vcpus: u32,
    pub(crate) boot: Option<Boot>,
    pub(crate) base: Bytes,
    pub(crate) plugged: Bytes,
    pub(crate) ballooned: Bytes,
    pub(crate) max: Bytes,
    pub(crate) target: Bytes,
    pub(crate) local_limit: Option<Bytes>,
    /// What the guest's programs use; while it runs.
    pub(crate) used: Bytes,
    pub(crate) promised: Promise,
    pub(crate) memory_servers: Vec<ServerAddress>,
    pub(crate) attachments: Vec<AttachmentId>,
    pub(crate) elastic: Option<ElasticView>,
    pub(crate) created_ms: u64,
    pub(crate) started_ms: Option<u64>,
    pub(crate) log: String,
}

/// Memory that is kept for a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) local: Bytes,
    pub(crate) far: Bytes,
}

impl Promise {
    /// What a machine of `size` needs.
    pub(crate) fn of(size: Bytes, local_limit: Option<Bytes>) -> Self {
        let local = local_limit.map_or(size, |limit| limit.min(size));
        Self { local, far: Bytes(size.0 - local.0) }
    }

    /// Enough for both.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { local: self.local.max(other.local), far: self.far.max(other.far) }
    }
}

impl Promise {
    /// What is in both.
    pub(crate) fn at_most(self, other: Self) -> Self {
        Self { local: self.local.min(other.local), far: self.far.min(other.far) }
    }
}

/// Longest log that is kept of a machine; the oldest is forgotten.
const LOG_BYTES_MAX: usize = 4 << 10;

impl SimVm {
    pub(crate) fn new(spec: VmSpec, now: u64) -> Self {
        Self {
            name: spec.name,
            state: VmState::Creating,
            reason: None,
            origin: Origin::Created,
            driver: spec.driver,
            pid: None,
            vcpus: spec.vcpus,
            boot: Some(spec.boot),
            base: spec.memory,
            plugged: Bytes(0),
            ballooned: Bytes(0),
            max: spec.memory_max.unwrap_or(spec.memory),
            target: spec.memory,
            local_limit: spec.local,
            used: Bytes(0),
            promised: Promise::of(spec.memory, spec.local),
            memory_servers: spec.memory_servers,
            attachments: spec.attachments,
            elastic: None,
            created_ms: now,
            started_ms: None,
            log: String::new(),
        }
    }

    /// What the guest has.
    pub(crate) fn size(&self) -> Bytes {
        Bytes(self.base.0 + self.plugged.0 - self.ballooned.0)
    }

    /// Whether it has a process; one that is being deleted has it until it is turned off.
    pub(crate) fn is_on(&self) -> bool {
        self.pid.is_some()
    }

    /// Resident memory now.
    pub(crate) fn local(&self) -> Bytes {
        if self.is_on() { self.local_limit.map_or(self.used, |limit| limit.min(self.used)) } else { Bytes(0) }
    }

    /// Memory on memory servers now.
    pub(crate) fn far(&self) -> Bytes {
        if self.is_on() { Bytes(self.used.0 - self.local().0) } else { Bytes(0) }
    }

    /// Gives the guest another size: first the balloon, then plugged memory, as [`super::plan`] says.
    pub(crate) fn resize(&mut self, size: Bytes) {
        self.plugged = Bytes(size.0.saturating_sub(self.base.0));
        self.ballooned = Bytes((self.base.0 + self.plugged.0) - size.0);
        self.used = self.used.min(size);
    }

    /// The guest comes up: a quarter of its memory is in use.
    pub(crate) fn switch_on(&mut self, pid: u32, now: u64) {
        self.state = VmState::Running;
        self.reason = None;
        self.pid = Some(pid);
        self.started_ms = Some(now);
        self.used = Bytes(self.size().0 / 4);
        self.say("booted");
    }

    /// The guest is off; what was plugged beside the base is gone, as it is with a real machine.
    pub(crate) fn switch_off(&mut self) {
        self.say("powered off");
        self.state = VmState::Stopped;
        (self.pid, self.started_ms) = (None, None);
        (self.plugged, self.ballooned, self.used) = (Bytes(0), Bytes(0), Bytes(0));
        self.target = self.base;
        // What a shrunk machine gave back may be others' by now: a start asks for it again.
        self.promised = self.promised.at_most(Promise::of(self.base, self.local_limit));
    }

    /// The guest writes a line on its console.
    pub(crate) fn say(&mut self, line: &str) {
        self.log.push_str(line);
        self.log.push('\n');
        let over = self.log.len().saturating_sub(LOG_BYTES_MAX);
        let cut = (over..self.log.len()).find(|at| self.log.is_char_boundary(*at)).unwrap_or_default();
        self.log.drain(..cut);
    }
}
