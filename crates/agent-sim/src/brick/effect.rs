//! What commands do to a brick: at their begin, at their end, and when they are undone.

use rackmem_api::VmName;
use rackmem_api::agent::{Boot, Driver, ElasticView, Origin, ResizeRequest, VmSpec, VmState};
use rackmem_types::Bytes;

use super::command::{Command, after};
use super::operations::Work;
use super::plan;
use super::vm::{Promise, SimVm};
use super::{Brick, SimAttachment};

/// One step of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) phrase: &'static str,
    pub(super) ms: u64,
}

impl Brick {
    /// The steps of a command, each with the time that it will take.
    pub(super) fn steps(&mut self, command: &Command) -> Vec<Step> {
        let phrases: &[&str] = match command {
            Command::Create(VmSpec { local: Some(_), .. }) => {
                &["reserve far memory", "start QEMU", "start the pager"]
            }
            Command::Create(_) => &["start QEMU"],
            Command::Start(_) => &["start QEMU", "start the pager"],
            Command::Stop(_, how) if how.force => &["turn off"],
            Command::Stop(..) => return vec![self.shut_down()],
            Command::Pause(_) => &["stop the processors"],
            Command::Resume(_) => &["start the processors"],
            Command::Delete(_) => &["turn off", "give memory back"],
            Command::Attach(..) => &["connect to the memory server"],
            Command::Detach(..) => &["move pages elsewhere", "disconnect from the memory server"],
            Command::Attachments { .. } => &["connect to the memory servers", "move pages elsewhere"],
            Command::DomainAttach(..) => &["find the process", "start the pager"],
            Command::DomainDetach(_) => &["bring all pages home"],
            Command::AttachmentCreate(entry) if self.attachments.contains_key(&entry.id) => &[],
            Command::AttachmentCreate(_) => &["reach the memory server"],
            Command::AttachmentDelete(_) => &["release the segment"],
            Command::Resize(name, request) => return self.resize_steps(name, *request),
            Command::Elastic(..) => &[],
        };
        let range = &self.config.latencies.step_ms;
        let (low, high) = (*range.start(), *range.end());
        let mut steps: Vec<_> =
            phrases.iter().map(|phrase| Step { phrase, ms: self.random.within(low, high) }).collect();
        let boots = matches!(command, Command::Create(VmSpec { start: true, .. }) | Command::Start(_));
        if boots {
            let range = &self.config.latencies.boot_ms;
            let ms = self.random.within(*range.start(), *range.end());
            steps.push(Step { phrase: "wait for the guest", ms });
        }
        steps
    }

    fn shut_down(&mut self) -> Step {
        let range = &self.config.latencies.shut_down_ms;
        let ms = self.random.within(*range.start(), *range.end());
        Step { phrase: "ask the guest to shut down", ms }
    }

    fn resize_steps(&mut self, name: &VmName, request: ResizeRequest) -> Vec<Step> {
        let Some(vm) = self.vms.get(name) else { return Vec::new() };
        let range = &self.config.latencies.gib_ms;
        let gib_ms = self.random.within(*range.start(), *range.end());
        let steps = plan::plan(vm, request, gib_ms).steps;
        let phrase = |mechanism| match mechanism {
            rackmem_api::agent::Mechanism::Balloon => "move the balloon",
            rackmem_api::agent::Mechanism::LocalLimit => "set the local limit",
            _ => "plug or take back memory",
        };
        steps.iter().map(|step| Step { phrase: phrase(step.mechanism), ms: step.cost.expected_ms }).collect()
    }

    pub(super) fn apply_at_begin(&mut self, command: &Command, now: u64) {
        match command {
            Command::Create(spec) => {
                self.vms.insert(spec.name.clone(), SimVm::new(spec.clone(), now));
            }
            Command::Delete(name) => self.change(name, |vm| vm.state = VmState::Deleting),
            Command::Start(name) => {
                self.change(name, |vm| vm.promised = Promise::of(vm.base, vm.local_limit))
            }
            Command::Resize(name, request) => self.change(name, |vm| {
                vm.target = request.memory.unwrap_or(vm.target);
                vm.promised = vm.promised.or(after(vm, *request));
            }),
            // From now on its pages need another place, and nobody else may promise that.
            Command::Detach(name, id) => self.change(name, |vm| vm.attachments.retain(|other| other != id)),
            Command::Attachments { name, to, .. } => self.change(name, |vm| vm.attachments.clone_from(to)),
            Command::DomainAttach(domain, request) => {
                let (Some(found), Some(name)) = (self.domain(domain).cloned(), request.name.clone()) else {
                    return;
                };
                let spec = VmSpec {
                    name: name.clone(),
                    memory: found.memory,
                    memory_max: None,
                    local: Some(request.local),
                    vcpus: 1,
                    boot: Boot::default(),
                    memory_servers: request.memory_servers.clone(),
                    attachments: request.attachments.clone(),
                    far_node: None,
                    growth: None,
                    driver: Driver::Libvirt,
                    start: true,
                };
                let mut vm = SimVm::new(spec, now);
                vm.switch_on(found.pid, now);
                (vm.origin, vm.boot, vm.started_ms) = (Origin::Attached, None, None);
                self.vms.insert(name, vm);
            }
            Command::AttachmentCreate(entry) => {
                let made = SimAttachment { entry: entry.clone(), created_ms: now };
                self.attachments.entry(entry.id.clone()).or_insert(made);
            }
            Command::Stop(..) | Command::Pause(_) | Command::Resume(_) | Command::Elastic(..) => {}
            Command::Attach(..) | Command::DomainDetach(_) | Command::AttachmentDelete(_) => {}
        }
    }

    /// Ends a command that succeeded; what comes back is what whoever asked should know.
    pub(super) fn apply_at_end(&mut self, command: &Command, now: u64) -> Option<String> {
        match command {
            Command::Create(VmSpec { name, start: true, .. }) | Command::Start(name) => {
                let pid = self.pid();
                self.change(name, |vm| vm.switch_on(pid, now));
                self.happen(now, "vm.running", name.as_str(), format!("'{name}' runs"));
            }
            Command::Create(VmSpec { name, .. }) => self.change(name, |vm| vm.state = VmState::Stopped),
            Command::Stop(name, _) => {
                self.change(name, SimVm::switch_off);
                self.happen(now, "vm.stopped", name.as_str(), format!("'{name}' is off"));
            }
            Command::Delete(name) | Command::DomainDetach(name) => {
                self.vms.remove(name);
                self.happen(now, "vm.gone", name.as_str(), format!("'{name}' is gone"));
            }
            Command::Pause(name) => self.change(name, |vm| vm.state = VmState::Paused),
            Command::Resume(name) => self.change(name, |vm| vm.state = VmState::Running),
            Command::Resize(name, request) => return self.resized(name, *request),
            Command::Elastic(name, bounds) => self.change(name, |vm| {
                vm.elastic = bounds.map(|bounds| ElasticView { bounds, decisions: Vec::new() });
            }),
            Command::Attach(name, id) => self.change(name, |vm| {
                if !vm.attachments.contains(id) {
                    vm.attachments.push(id.clone());
                }
            }),
            Command::AttachmentDelete(id) => {
                self.attachments.remove(id);
            }
            Command::Detach(..) | Command::Attachments { .. } => {}
            Command::DomainAttach(..) | Command::AttachmentCreate(_) => {}
        }
        None
    }

    fn resized(&mut self, name: &VmName, request: ResizeRequest) -> Option<String> {
        let vm = self.vms.get_mut(name)?;
        let asked = request.memory.unwrap_or(vm.size());
        let reached = plan::reachable(vm, asked);
        vm.resize(reached);
        vm.local_limit = request.local.or(vm.local_limit);
        vm.promised = Promise::of(reached, vm.local_limit);
        vm.say(&format!("memory is {reached} now"));
        let short = Bytes(reached.0 - asked.0);
        (short.0 > 0).then(|| format!("the guest gave back all but {short}: its programs use {}", vm.used))
    }

    /// Leaves the brick as if the command had not been begun.
    pub(super) fn undo(&mut self, work: Work) {
        match work.command {
            Command::Create(VmSpec { name, .. }) => {
                self.vms.remove(&name);
            }
            Command::DomainAttach(_, request) => {
                request.name.and_then(|name| self.vms.remove(&name));
            }
            Command::AttachmentCreate(entry) => {
                self.attachments.remove(&entry.id);
            }
            // Half deleted is not as before; it can be deleted again.
            Command::Delete(name) => self.change(&name, |vm| {
                vm.switch_off();
                vm.state = VmState::Failed;
                vm.reason = Some("it could not be deleted: delete it again".to_owned());
            }),
            _ => {
                let Some(mut before) = work.before else { return };
                if let Some(present) = self.vms.get(&before.name) {
                    // The guest did not stand still meanwhile.
                    before.used = present.used.min(before.size());
                    before.log.clone_from(&present.log);
                }
                self.vms.insert(before.name.clone(), before);
            }
        }
    }

    fn change(&mut self, name: &VmName, change: impl FnOnce(&mut SimVm)) {
        if let Some(vm) = self.vms.get_mut(name) {
            change(vm);
        }
    }
}
