//! VMs that were made here and that libvirt runs: domains, known by a UUID that is written down before libvirt hears of it.
//!
//! libvirt keeps the definition, starts QEMU and cleans up after it; what is in a definition is decided here, anew at each
//! start. Whether a domain runs is asked of the kernel, so a VM is found also while libvirtd is down.

use std::path::PathBuf;

use rackmem_api::problem::ProblemType;
use rackmem_api::{Problem, VmName};
use rackmem_qemu::libvirt::{self, Definition, Libvirt, process_of};
use rackmem_qemu::{Machine, MachineConfig, MachineFiles, ProcessIdentity, Qemu, QemuError};
use uuid::Uuid;

use super::Found;
use crate::problem::{from_qemu, wrong_state};
use crate::seen::Seen;

/// The libvirt of this brick.
#[derive(Debug)]
pub(crate) struct Domains {
    uri: String,
}

impl Domains {
    /// The domains of the libvirt at this URI.
    pub(crate) fn new(uri: String) -> Self {
        Self { uri }
    }

    /// Refuses a new VM where there is no libvirt, or where its name is taken there.
    pub(crate) async fn check(&self, name: &VmName) -> Result<(), Problem> {
        let known = self.connect().await?.domains().await.map_err(|error| from_qemu(&error))?;
        if known.iter().all(|domain| domain.name != name.as_str()) {
            return Ok(());
        }
        let detail = format!(
            "libvirt has a domain '{name}' already: choose another name, or give that one far memory with 'rackmem vm attach {name}'"
        );
        Err(Problem::new(ProblemType::Exists, detail))
    }

    /// Defines a VM's domain, or defines it anew.
    pub(crate) async fn define(
        &self,
        uuid: Uuid,
        config: &MachineConfig,
        files: &MachineFiles,
        qemu: &Qemu,
    ) -> Result<(), Problem> {
        let libvirt = self.connect().await?;
        let confinements = libvirt.confinements().await.map_err(|error| from_qemu(&error))?;
        let uuid = uuid.to_string();
        let definition = Definition { config, files, qemu, uuid: &uuid, confinements: &confinements };
        libvirt.define(&definition).await.map_err(|error| from_qemu(&error))
    }

    /// Starts a VM's domain, its virtual CPUs standing still.
    pub(crate) async fn start(&self, uuid: Uuid) -> Result<Seen, Problem> {
        let found = self.connect().await?.machine(&uuid.to_string()).await;
        let machine = found.map_err(|error| from_qemu(&error))?;
        machine.start().await.map_err(|error| from_qemu(&error))?;
        Ok(Seen::new(machine))
    }

    /// The machine of a VM that runs.
    pub(crate) async fn find(&self, uuid: Uuid) -> Result<Option<Seen>, Problem> {
        match process_of(&uuid.to_string()) {
            Some(_) => self.machine(&uuid.to_string()).await.map(Some),
            None => Ok(None),
        }
    }

    /// The domain of this name or UUID, whoever defined it.
    pub(crate) async fn machine(&self, name_or_uuid: &str) -> Result<Seen, Problem> {
        let found = self.connect().await?.machine(name_or_uuid).await;
        found.map(Seen::new).map_err(|error| from_qemu(&error))
    }

    /// Ends a VM's domain by force, also one that is just starting; the process that it may still have if libvirt cannot.
    pub(crate) async fn end(&self, uuid: Uuid) -> Result<Option<ProcessIdentity>, Problem> {
        let ended = match self.connect().await?.machine(&uuid.to_string()).await {
            Ok(machine) => machine.end().await,
            // It was never defined.
            Err(QemuError::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = &ended {
            tracing::warn!(%uuid, %error, "libvirt does not end a domain");
        }
        Ok(process_of(&uuid.to_string()))
    }

    /// Forgets a VM's domain.
    pub(crate) async fn undefine(&self, uuid: Uuid) -> Result<(), Problem> {
        self.connect().await?.undefine(&uuid.to_string()).await.map_err(|error| from_qemu(&error))
    }

    /// Whether a VM is off because its guest switched it off; no, if libvirt cannot be asked.
    pub(crate) async fn was_switched_off(&self, uuid: Uuid) -> bool {
        let Ok(libvirt) = self.connect().await else { return false };
        libvirt.was_switched_off(&uuid.to_string()).await.unwrap_or(false)
    }

    /// The domain of this name, UUID or process id that somebody else started; `None` if there is none, or no libvirt.
    pub(crate) async fn foreign(&self, domain: &str) -> Result<Option<Found>, Problem> {
        let Ok(libvirt) = self.connect().await else { return Ok(None) };
        let machine = match domain.parse() {
            Ok(pid) => libvirt.by_pid(pid).await.map_err(|error| from_qemu(&error))?,
            Err(_) => match libvirt.machine(domain).await {
                Ok(machine) => Some(machine),
                Err(QemuError::Missing { .. }) => None,
                Err(error) => return Err(from_qemu(&error)),
            },
        };
        let Some(machine) = machine else { return Ok(None) };
        let name = machine.name().to_owned();
        match machine.process().await {
            Ok(process) => Ok(Some(Found { name, process })),
            Err(_) => Err(wrong_state(format!(
                "libvirt's domain '{name}' does not run: start it with 'virsh start {name}'"
            ))),
        }
    }

    /// Refuses a QEMU that libvirt started where nothing is known of libvirt.
    pub(crate) fn may_attach(&self, _name: &str) -> Result<(), Problem> {
        Ok(())
    }

    /// Where libvirt keeps what the QEMU of a VM says.
    pub(crate) fn log_of(&self, name: &VmName) -> Result<PathBuf, Problem> {
        Ok(libvirt::log_of(name.as_str()))
    }

    /// What the QEMU of a VM said last.
    pub(crate) fn last_words(&self, name: &VmName) -> Option<String> {
        libvirt::last_words(name.as_str())
    }

    async fn connect(&self) -> Result<Libvirt, Problem> {
        let connected = Libvirt::connect(&self.uri).await;
        connected.map_err(|error| match error {
            QemuError::Libvirt { reason, .. } => {
                let detail = format!(
                    "libvirt at {} cannot be reached ({reason}): start it ('systemctl start libvirtd'), or tell the agent of another one with --libvirt",
                    self.uri
                );
                Problem::new(ProblemType::Unavailable, detail)
            }
            error => from_qemu(&error),
        })
    }
}
