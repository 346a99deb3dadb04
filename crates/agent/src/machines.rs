//! The machines behind the VMs: QEMU processes that are started, here or by libvirt, found again after an agent has died, and
//! spoken to.
//!
//! An open machine is a connection to its monitor, kept as long as its process lives. A monitor serves one client only, so
//! each VM has a gate: whoever opens or starts its machine holds it, and the others then find the machine open.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rackmem_api::{Problem, VmName};
use rackmem_qemu::{
    DirectMachine, Event, Machine, MachineConfig, MachineFiles, ProcessIdentity, Qemu, image, process, seed,
};

use crate::hypervisor::Hypervisor;
use crate::libvirt::Domains;
use crate::problem::{from_qemu, invalid, system, wrong_state};
use crate::seen::Seen;
use crate::vm::{Domain, VmFiles, VmRecord, machine_config};

/// How often guests are asked how they fare, in seconds: the smallest that QEMU offers, because a guest that runs out of
/// memory has seconds only.
const ASK_GUEST_S: u32 = 1;

/// All machines of this agent.
#[derive(Debug)]
pub(crate) struct Machines {
    hypervisor: Hypervisor,
    state: PathBuf,
    domains: Domains,
    open: Mutex<HashMap<VmName, Open>>,
    gates: Mutex<HashMap<VmName, Arc<tokio::sync::Mutex<()>>>>,
    /// Machines whose guests have switched them off.
    switched_off: Arc<Mutex<HashSet<ProcessIdentity>>>,
}

#[derive(Clone, Debug)]
struct Open {
    process: ProcessIdentity,
    machine: Arc<Seen>,
}

impl Machines {
    /// Machines of this QEMU with their files below `state`, and domains of the libvirt at this URI.
    pub(crate) fn new(hypervisor: Hypervisor, state: PathBuf, libvirt: String) -> Self {
        Self {
            hypervisor,
            state,
            domains: Domains::new(libvirt),
            open: Mutex::default(),
            gates: Mutex::default(),
            switched_off: Arc::default(),
        }
    }

    /// The QEMU that starts them.
    pub(crate) fn hypervisor(&self) -> &Hypervisor {
        &self.hypervisor
    }

    /// Those that libvirt runs.
    pub(crate) fn domains(&self) -> &Domains {
        &self.domains
    }

    /// The files of a VM.
    pub(crate) fn files(&self, name: &VmName) -> VmFiles {
        VmFiles::new(&self.state, name)
    }

    /// Refuses what cannot be started: a missing image, a bad size, something that is no image.
    pub(crate) async fn check(&self, vm: &VmRecord) -> Result<(), Problem> {
        let spec = &vm.spec;
        let files = [&spec.boot.kernel, &spec.boot.initrd, &spec.boot.cloud_init];
        for path in files.into_iter().flatten().chain(&spec.boot.disks) {
            if !path.is_absolute() {
                return Err(invalid(format!(
                    "{} is not an absolute path: the agent has another directory",
                    path.display()
                )));
            }
            if let Err(error) = tokio::fs::metadata(path).await {
                return Err(invalid(format!("{} cannot be read on this brick: {error}", path.display())));
            }
        }
        let files = self.files(vm.name()).machine().map_err(|error| from_qemu(&error))?;
        let image = inspect(vm).await?;
        // Until it is known what QEMU offers, it offers the best.
        let has_virtio_mem = self.hypervisor.known().is_none_or(|qemu| qemu.capabilities.virtio_mem);
        let config = machine_config(spec, image.as_ref(), &files, has_virtio_mem)?;
        config.check().map_err(|error| from_qemu(&error))
    }

    /// Makes a VM's directory and what it boots from, and tells libvirt of it if that is to run it.
    pub(crate) async fn prepare(&self, vm: &VmRecord) -> Result<(), Problem> {
        let files = self.files(vm.name());
        files.make().map_err(|error| system(&format!("make {}", files.directory().display()), error))?;
        self.seed(vm, &files)?;
        let Some(uuid) = vm.uuid else { return Ok(()) };
        let qemu = self.hypervisor.qemu().await.map_err(|error| from_qemu(&error))?;
        let (config, files) = self.config(vm, qemu).await?;
        self.domains.define(uuid, &config, &files, qemu).await
    }

    fn seed(&self, vm: &VmRecord, files: &VmFiles) -> Result<(), Problem> {
        let Some(from) = vm.spec.boot.cloud_init.as_ref().filter(|path| path.is_dir()) else { return Ok(()) };
        let path = from.join("user-data");
        let user_data = std::fs::read(&path)
            .map_err(|error| invalid(format!("{} cannot be read: {error}", path.display())))?;
        let machine = files.machine().map_err(|error| from_qemu(&error))?;
        // Cloud-init does its work once for each instance: a machine that is made anew is another one.
        let instance = format!("{}-{}", vm.name(), vm.created_ms);
        seed::write(&machine.seed(), vm.name().as_str(), &instance, &user_data)
            .map_err(|error| from_qemu(&error))
    }

    /// Starts a VM's machine, its virtual CPUs standing still; or finds the one that was started.
    pub(crate) async fn start(&self, vm: &VmRecord) -> Result<(Arc<Seen>, ProcessIdentity), Problem> {
        // It may take seconds to find out what QEMU offers; those who only look should not wait for that at the gate.
        let qemu = self.hypervisor.qemu().await.map_err(|error| from_qemu(&error))?;
        let gate = self.gate(vm.name());
        let _held = gate.lock().await;
        if let Some(found) = self.open(vm).await? {
            return Ok(found);
        }
        let (config, files) = self.config(vm, qemu).await?;
        let machine = match vm.uuid {
            Some(uuid) => {
                // Its size may have changed since.
                self.domains.define(uuid, &config, &files, qemu).await?;
                self.domains.start(uuid).await?
            }
            None => Seen::new(qemu.start(&config, &files).await.map_err(|error| from_qemu(&error))?),
        };
        self.keep(vm.name(), machine).await
    }

    async fn config(&self, vm: &VmRecord, qemu: &Qemu) -> Result<(MachineConfig, MachineFiles), Problem> {
        let files = self.files(vm.name()).machine().map_err(|error| from_qemu(&error))?;
        let has_virtio_mem = qemu.capabilities.virtio_mem;
        let config = machine_config(&vm.spec, inspect(vm).await?.as_ref(), &files, has_virtio_mem)?;
        Ok((config, files))
    }

    /// Ends a VM's machine by force, `patience` after it was told to; one that does not run is left as it is.
    pub(crate) async fn end(&self, vm: &VmRecord, patience: Duration) -> Result<(), Problem> {
        let running = match vm.uuid {
            Some(uuid) => match self.domains.end(uuid).await {
                Ok(left) => left,
                // A libvirtd that does not answer is no reason to let it run.
                Err(problem) => Some(vm.alive().ok_or(problem)?),
            },
            None => match self.find(vm).await {
                Ok(found) => found.map(|(_, process)| process),
                // Nor is a monitor that does not.
                Err(_) => vm.alive(),
            },
        };
        if let Some(process) = running {
            process::kill(process, patience).await.map_err(|error| from_qemu(&error))?;
        }
        self.forget(vm.name());
        Ok(())
    }

    /// Removes what [`Machines::prepare`] made.
    pub(crate) async fn remove(&self, vm: &VmRecord) -> Result<(), Problem> {
        if let Some(uuid) = vm.uuid {
            self.domains.undefine(uuid).await?;
        }
        let files = self.files(vm.name());
        files.remove().map_err(|error| system(&format!("remove {}", files.directory().display()), error))
    }

    /// The machine of a VM that runs, however it is known: open already, by its record, or by its files.
    pub(crate) async fn find(&self, vm: &VmRecord) -> Result<Option<(Arc<Seen>, ProcessIdentity)>, Problem> {
        if let Some(known) = self.known(vm.name()) {
            return Ok(Some(known));
        }
        let gate = self.gate(vm.name());
        let _held = gate.lock().await;
        self.open(vm).await
    }

    /// The machine that is open already and lives.
    fn known(&self, name: &VmName) -> Option<(Arc<Seen>, ProcessIdentity)> {
        let Open { process, machine } = self.lock().get(name).cloned()?;
        process.is_alive().then_some((machine, process))
    }

    /// Opens the machine of a VM whose gate is held.
    async fn open(&self, vm: &VmRecord) -> Result<Option<(Arc<Seen>, ProcessIdentity)>, Problem> {
        if let Some(known) = self.known(vm.name()) {
            return Ok(Some(known));
        }
        self.forget(vm.name());
        if let Some(domain) = &vm.domain {
            return self.find_domain(vm, domain).await;
        }
        if let Some(uuid) = vm.uuid {
            return match self.domains.find(uuid).await? {
                Some(machine) => self.keep(vm.name(), machine).await.map(Some),
                None => Ok(None),
            };
        }
        let files = self.files(vm.name()).machine().map_err(|error| from_qemu(&error))?;
        let found =
            DirectMachine::find(vm.name().as_str(), &files).await.map_err(|error| from_qemu(&error))?;
        match found {
            Some(machine) => self.keep(vm.name(), Seen::new(machine)).await.map(Some),
            None => Ok(None),
        }
    }

    async fn find_domain(
        &self,
        vm: &VmRecord,
        domain: &Domain,
    ) -> Result<Option<(Arc<Seen>, ProcessIdentity)>, Problem> {
        let Some(process) = vm.alive() else { return Ok(None) };
        let machine = match (&domain.qmp, &domain.libvirt) {
            (Some(qmp), _) => {
                let machine = DirectMachine::attach(vm.name().as_str(), qmp).await;
                Seen::new(machine.map_err(|error| from_qemu(&error))?)
            }
            (None, Some(name)) => self.domains.machine(name).await?,
            (None, None) => return Ok(None),
        };
        let (machine, found) = self.keep(vm.name(), machine).await?;
        Ok((found == process).then_some((machine, found)))
    }

    /// The machine of a VM that has to run.
    pub(crate) async fn running(&self, vm: &VmRecord) -> Result<(Arc<Seen>, ProcessIdentity), Problem> {
        let found = self.find(vm).await?;
        found.ok_or_else(|| match vm.domain {
            Some(_) if vm.alive().is_some() => wrong_state(format!(
                "'{0}' was started by somebody else and its monitor cannot be reached: only its far memory is managed here",
                vm.name()
            )),
            _ => wrong_state(format!("'{0}' does not run: start it with 'rackmem vm start {0}'", vm.name())),
        })
    }

    /// Lets go of a machine that has ended.
    pub(crate) fn forget(&self, name: &VmName) {
        self.lock().remove(name);
    }

    async fn keep(&self, name: &VmName, machine: Seen) -> Result<(Arc<Seen>, ProcessIdentity), Problem> {
        let process = machine.process().await.map_err(|error| from_qemu(&error))?;
        // Without a balloon, or with one of somebody else's that refuses, the guest stays silent.
        let _ = machine.guest_memory_every(ASK_GUEST_S).await;
        self.listen(&machine, process);
        let machine = Arc::new(machine);
        // So that something is known of it when it is busy later.
        let looked_at = Arc::clone(&machine);
        tokio::spawn(async move { looked_at.look().await });
        self.lock().insert(name.clone(), Open { process, machine: Arc::clone(&machine) });
        Ok((machine, process))
    }

    /// Notes when the guest switches its machine off: once the process has ended, nothing else tells that from a crash.
    fn listen(&self, machine: &dyn Machine, process: ProcessIdentity) {
        let (mut events, switched_off) = (machine.events(), Arc::clone(&self.switched_off));
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Event::Shutdown { by_guest: true, .. } => {
                        switched_off.lock().unwrap_or_else(PoisonError::into_inner).insert(process);
                    }
                    Event::Ended => return,
                    _ => {}
                }
            }
        });
    }

    /// Whether the guest of a machine that has ended had switched it off.
    pub(crate) async fn was_switched_off(&self, vm: &VmRecord, process: ProcessIdentity) -> bool {
        let was_heard = self.switched_off.lock().unwrap_or_else(PoisonError::into_inner).remove(&process);
        match vm.uuid {
            Some(uuid) if !was_heard => self.domains.was_switched_off(uuid).await,
            _ => was_heard,
        }
    }

    fn gate(&self, name: &VmName) -> Arc<tokio::sync::Mutex<()>> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry(name.clone()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VmName, Open>> {
        // Nothing that is done under it can panic half way.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn inspect(vm: &VmRecord) -> Result<Option<image::ImageInfo>, Problem> {
    match vm.spec.boot.disks.first() {
        Some(path) => image::inspect(path).await.map(Some).map_err(|error| from_qemu(&error)),
        None => Ok(None),
    }
}
