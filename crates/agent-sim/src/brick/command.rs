//! What can be asked of a brick, and whether it may be done now.

use rackmem_api::agent::{
    Attachment, DomainAttach, ElasticBounds, Origin, ResizeRequest, StopRequest, VmSpec, VmState, kind,
};
use rackmem_api::problem::ProblemType;
use rackmem_api::{AttachmentId, Problem, VmName};

use super::Brick;
use super::vm::{Promise, SimVm};
use crate::config::SimDomain;

/// A change of the brick.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Create(VmSpec),
    Delete(VmName),
    Start(VmName),
    Stop(VmName, StopRequest),
    Pause(VmName),
    Resume(VmName),
    Resize(VmName, ResizeRequest),
    Elastic(VmName, Option<ElasticBounds>),
    Attach(VmName, AttachmentId),
    Detach(VmName, AttachmentId),
    /// What it has, which is filled in when it is accepted, and what it will have.
    Attachments {
        name: VmName,
        from: Vec<AttachmentId>,
        to: Vec<AttachmentId>,
    },
    DomainAttach(String, DomainAttach),
    DomainDetach(VmName),
    AttachmentCreate(Attachment),
    AttachmentDelete(AttachmentId),
}

impl Command {
    /// The kind of its operation.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Create(_) => kind::VM_CREATE,
            Self::Delete(_) => kind::VM_DELETE,
            Self::Start(_) => kind::VM_START,
            Self::Stop(..) => kind::VM_STOP,
            Self::Pause(_) => kind::VM_PAUSE,
            Self::Resume(_) => kind::VM_RESUME,
            Self::Resize(..) => kind::VM_RESIZE,
            Self::Elastic(..) => kind::VM_ELASTIC,
            Self::Attach(..) => kind::VM_ATTACH,
            Self::Detach(..) => kind::VM_DETACH,
            Self::Attachments { .. } => kind::VM_ATTACHMENTS,
            Self::DomainAttach(..) => kind::DOMAIN_ATTACH,
            Self::DomainDetach(_) => kind::DOMAIN_DETACH,
            Self::AttachmentCreate(_) => kind::ATTACHMENT_CREATE,
            Self::AttachmentDelete(_) => kind::ATTACHMENT_DELETE,
        }
    }

    /// The machine that it changes, or will have made.
    pub(super) fn vm(&self) -> Option<&VmName> {
        match self {
            Self::Create(spec) => Some(&spec.name),
            Self::Delete(name) | Self::Start(name) | Self::Stop(name, _) | Self::Pause(name) => Some(name),
            Self::Resume(name) | Self::Resize(name, _) | Self::Elastic(name, _) => Some(name),
            Self::Attach(name, _) | Self::Detach(name, _) | Self::DomainDetach(name) => Some(name),
            Self::Attachments { name, .. } => Some(name),
            // Its name is given when it is accepted.
            Self::DomainAttach(_, request) => request.name.as_ref(),
            Self::AttachmentCreate(_) | Self::AttachmentDelete(_) => None,
        }
    }

    /// The one attachment that it changes the owner of, or makes or removes.
    const fn attachment(&self) -> Option<&AttachmentId> {
        match self {
            Self::AttachmentCreate(Attachment { id, .. }) | Self::AttachmentDelete(id) => Some(id),
            Self::Attach(_, id) | Self::Detach(_, id) => Some(id),
            _ => None,
        }
    }

    /// Whether it changes the owner of this attachment, or makes or removes it.
    pub(super) fn changes(&self, id: &AttachmentId) -> bool {
        match self {
            Self::Attachments { from, to, .. } => from.contains(id) != to.contains(id),
            _ => self.attachment() == Some(id),
        }
    }

    /// What it is done to, in words.
    pub(super) fn target(&self) -> String {
        match self {
            Self::AttachmentCreate(Attachment { id, .. }) | Self::AttachmentDelete(id) => id.to_string(),
            Self::DomainAttach(domain, _) => self.vm().map_or_else(|| domain.clone(), ToString::to_string),
            _ => self.vm().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl Brick {
    /// Whether the command may be begun now; it comes back with all that was left open filled in.
    pub(super) fn check(&self, command: Command) -> Result<Command, Problem> {
        let command = self.resolved(command)?;
        // Which machine there is comes before who is changing it, and a delete waits for nobody.
        if !matches!(command, Command::Delete(_)) {
            self.check_idle(&command)?;
        }
        match &command {
            Command::Create(spec) => self.check_create(spec)?,
            Command::Delete(name) => self.check_created(name)?,
            Command::Start(name) => self.check_start(name)?,
            Command::Stop(name, _) => {
                self.check_state(name, "stopped", &[VmState::Running, VmState::Paused, VmState::Waiting])?;
            }
            Command::Pause(name) => self.check_state(name, "paused", &[VmState::Running])?,
            Command::Resume(name) => self.check_state(name, "resumed", &[VmState::Paused])?,
            Command::Resize(name, request) => self.check_resize(name, *request)?,
            Command::Elastic(name, bounds) => {
                let vm = self.vm(name)?;
                bounds.map_or(Ok(()), |bounds| bounds.check(vm.max))?;
            }
            Command::Attach(name, id) => {
                self.vm(name)?;
                self.check_free(name, id)?;
            }
            Command::Detach(name, id) => self.check_detach(name, id)?,
            Command::Attachments { name, to, .. } => {
                for id in to {
                    self.check_free(name, id)?;
                }
                self.check_capacity(name, self.vm(name)?.promised, to)?;
            }
            Command::DomainAttach(domain, request) => self.check_domain(domain, request)?,
            Command::DomainDetach(name) => {
                if self.vm(name)?.origin == Origin::Created {
                    let detail = format!("'{name}' was made by this agent: delete it instead");
                    return Err(Problem::new(ProblemType::WrongState, detail));
                }
            }
            Command::AttachmentCreate(entry) => {
                self.check_entry(entry)?;
            }
            Command::AttachmentDelete(id) => {
                self.attachment(id)?;
                if let Some(owner) = self.owner(id) {
                    let detail = format!("attachment '{id}' belongs to '{owner}': take it from there first");
                    return Err(Problem::new(ProblemType::InUse, detail));
                }
            }
        }
        Ok(command)
    }

    fn resolved(&self, command: Command) -> Result<Command, Problem> {
        let (domain, mut request) = match command {
            Command::DomainAttach(domain, request) => (domain, request),
            Command::Attachments { name, to, .. } => {
                let from = self.vm(&name)?.attachments.clone();
                return Ok(Command::Attachments { name, from, to });
            }
            command => return Ok(command),
        };
        let found = self.domain(&domain).ok_or_else(|| Problem::not_found("domain", &domain))?;
        if request.name.is_none() {
            // A process id is always a name.
            request.name = found.name.parse().or_else(|_| format!("pid-{}", found.pid).parse()).ok();
        }
        Ok(Command::DomainAttach(domain, request))
    }

    /// A domain by its name or its process id.
    pub(super) fn domain(&self, domain: &str) -> Option<&SimDomain> {
        self.config.domains.iter().find(|known| known.name == domain || known.pid.to_string() == domain)
    }

    fn check_idle(&self, command: &Command) -> Result<(), Problem> {
        // A create under a name that is being made is told that the name exists.
        if matches!(command, Command::Create(_) | Command::DomainAttach(..)) {
            return Ok(());
        }
        let vm = command.vm().and_then(|name| self.operations.changing_vm(name));
        let attachment = command.attachment().and_then(|id| self.operations.changing_attachment(id));
        match vm.or(attachment) {
            Some(operation) => Err(busy(&operation.target, &operation.kind)),
            None => Ok(()),
        }
    }

    fn check_create(&self, spec: &VmSpec) -> Result<(), Problem> {
        spec.check()?;
        self.check_name(&spec.name)?;
        for id in &spec.attachments {
            self.check_free(&spec.name, id)?;
        }
        self.check_capacity(&spec.name, Promise::of(spec.memory, spec.local), &spec.attachments)
    }

    fn check_name(&self, name: &VmName) -> Result<(), Problem> {
        if self.vms.contains_key(name) {
            let detail = format!("there is a machine '{name}' already: choose another name, or delete it");
            return Err(Problem::new(ProblemType::Exists, detail));
        }
        Ok(())
    }

    fn check_created(&self, name: &VmName) -> Result<(), Problem> {
        if self.vm(name)?.origin == Origin::Attached {
            let detail =
                format!("'{name}' was started by somebody else: detach it, it is not ours to delete");
            return Err(Problem::new(ProblemType::WrongState, detail));
        }
        Ok(())
    }

    fn check_start(&self, name: &VmName) -> Result<(), Problem> {
        self.check_state(name, "started", &[VmState::Stopped, VmState::Failed])?;
        let SimVm { base, local_limit, attachments, .. } = self.vm(name)?;
        self.check_capacity(name, Promise::of(*base, *local_limit), attachments)
    }

    fn check_state(&self, name: &VmName, done: &str, states: &[VmState]) -> Result<(), Problem> {
        let state = self.vm(name)?.state;
        if states.contains(&state) {
            return Ok(());
        }
        let state = format!("{state:?}").to_lowercase();
        Err(Problem::new(ProblemType::WrongState, format!("'{name}' is {state} and cannot be {done} now")))
    }

    pub(crate) fn check_resize(&self, name: &VmName, request: ResizeRequest) -> Result<(), Problem> {
        let vm = self.vm(name)?;
        request.check(vm.max)?;
        self.check_state(name, "resized", &[VmState::Running, VmState::Paused])?;
        let after = after(vm, request);
        self.check_capacity(name, vm.promised.or(after), &vm.attachments)
    }

    fn check_detach(&self, name: &VmName, id: &AttachmentId) -> Result<(), Problem> {
        let vm = self.vm(name)?;
        self.attachment(id)?;
        if !vm.attachments.contains(id) {
            let detail = format!("attachment '{id}' does not belong to '{name}'");
            return Err(Problem::new(ProblemType::WrongState, detail));
        }
        let rest: Vec<_> = vm.attachments.iter().filter(|other| *other != id).cloned().collect();
        self.check_capacity(name, vm.promised, &rest)
    }

    fn check_domain(&self, domain: &str, request: &DomainAttach) -> Result<(), Problem> {
        let found = self.domain(domain).ok_or_else(|| Problem::not_found("domain", domain))?;
        if let Some(vm) = self.vms.values().find(|vm| vm.pid == Some(found.pid)) {
            let detail = format!("domain '{domain}' has far memory already, as '{}'", vm.name);
            return Err(Problem::new(ProblemType::Exists, detail));
        }
        if request.local.0 == 0 {
            let detail = "local is 0: a guest needs some resident memory, give at least a few MiB";
            return Err(Problem::new(ProblemType::Invalid, detail));
        }
        let Some(name) = &request.name else { return Ok(()) };
        self.check_name(name)?;
        for id in &request.attachments {
            self.check_free(name, id)?;
        }
        self.check_capacity(name, Promise::of(found.memory, Some(request.local)), &request.attachments)
    }
}

/// Somebody else is changing it.
pub(super) fn busy(target: &str, kind: &str) -> Problem {
    let detail = format!("'{target}' is being changed ({kind}): wait for that operation, or cancel it");
    Problem::new(ProblemType::Busy, detail)
}

/// What a machine needs after a resize.
pub(super) fn after(vm: &SimVm, request: ResizeRequest) -> Promise {
    Promise::of(request.memory.unwrap_or(vm.size()), request.local.or(vm.local_limit))
}
