//! Machines that libvirt looks after, whoever defined or started them. libvirt is reached by its own client program `virsh`, so
//! neither its C library nor its headers are needed to build, and a monitor command passes through it as it is
//! (`qemu-monitor-command`). Each call is a process of some 30 ms, which is nothing beside what it asks of a guest.

mod definition;
mod domain;
mod virsh;

pub use definition::Definition;
pub use domain::LibvirtMachine;

use std::path::PathBuf;

use crate::{ProcessIdentity, QemuError, Result};
use virsh::Virsh;

/// What it says of a domain that is off because its guest switched it off.
const SWITCHED_OFF: &str = "shut off (shutdown)";

/// A connection's worth of libvirt.
#[derive(Clone, Debug)]
pub struct Libvirt {
    virsh: Virsh,
}

/// A domain that libvirt knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainInfo {
    /// Its name.
    pub name: String,
    /// Its UUID, as text.
    pub uuid: String,
}

impl Libvirt {
    /// Makes sure that a libvirtd answers at `uri`.
    pub async fn connect(uri: &str) -> Result<Self> {
        let virsh = Virsh::new(uri);
        virsh.run(&["uri"]).await?;
        Ok(Self { virsh })
    }

    /// All domains, also those that are off.
    pub async fn domains(&self) -> Result<Vec<DomainInfo>> {
        let listed = self.virsh.run(&["list", "--all", "--uuid", "--name"]).await?;
        Ok(listed.lines().filter_map(domain_in).collect())
    }

    /// The domain of this name or UUID.
    pub async fn machine(&self, name_or_uuid: &str) -> Result<LibvirtMachine> {
        let known = self.domains().await?;
        let found =
            known.into_iter().find(|domain| domain.name == name_or_uuid || domain.uuid == name_or_uuid);
        let domain = found.ok_or_else(|| QemuError::Missing {
            what: format!("domain '{name_or_uuid}'"),
            remedy: "`virsh list --all` shows those that libvirt knows".to_owned(),
        })?;
        Ok(LibvirtMachine::new(self.virsh.clone(), domain))
    }

    /// The domain whose QEMU has this process id; nothing if it is none of libvirt's.
    pub async fn by_pid(&self, pid: u32) -> Result<Option<LibvirtMachine>> {
        let domains = self.domains().await?;
        let found = domains.into_iter().find(|domain| domain::is_process_of(pid, &domain.uuid));
        Ok(found.map(|domain| LibvirtMachine::new(self.virsh.clone(), domain)))
    }

    /// Defines a domain, or changes the definition of one with the same name and UUID.
    pub async fn define(&self, definition: &Definition<'_>) -> Result<()> {
        self.define_xml(&definition.xml()?).await
    }

    /// Defines a domain as somebody else would.
    pub async fn define_xml(&self, xml: &str) -> Result<()> {
        let (_file, path) = file_of(xml)?;
        self.virsh.run(&["define", "--file", &path]).await.map(drop)
    }

    /// Forgets a domain, with what libvirt keeps of its past; one that runs goes on until it ends. Nothing happens if there is
    /// none.
    pub async fn undefine(&self, name_or_uuid: &str) -> Result<()> {
        let arguments = ["undefine", "--managed-save", "--snapshots-metadata", "--domain", name_or_uuid];
        match self.virsh.run(&arguments).await {
            Err(QemuError::Libvirt { reason, .. }) if reason.contains("failed to get domain") => Ok(()),
            answered => answered.map(drop),
        }
    }

    /// Whether a domain is off because its guest switched it off.
    pub async fn was_switched_off(&self, name_or_uuid: &str) -> Result<bool> {
        let said = self.virsh.run(&["domstate", "--reason", "--domain", name_or_uuid]).await?;
        Ok(said.trim() == SWITCHED_OFF)
    }

    /// Security drivers that confine domains, beside the one of users and groups, which is always there.
    pub async fn confinements(&self) -> Result<Vec<String>> {
        Ok(confinements_in(&self.virsh.run(&["capabilities"]).await?))
    }
}

/// The process of the domain with this UUID, as the kernel knows it; libvirt is not asked.
pub fn process_of(uuid: &str) -> Option<ProcessIdentity> {
    domain::process_of(uuid)
}

/// Where libvirt keeps what the QEMU of a domain says.
pub fn log_of(name: &str) -> PathBuf {
    PathBuf::from(format!("/var/log/libvirt/qemu/{name}.log"))
}

/// What a domain's QEMU said last. libvirt's log has its command line before that, which ends like this.
pub fn last_words(name: &str) -> Option<String> {
    let log = std::fs::read(log_of(name)).ok()?;
    let log = String::from_utf8_lossy(&log);
    let (_, said) = log.rsplit_once("-msg timestamp=on\n")?;
    (!said.trim().is_empty()).then(|| said.trim().to_owned())
}

/// A file for `virsh`, as long as it is held, and its path.
fn file_of(xml: &str) -> Result<(tempfile::NamedTempFile, String)> {
    let file = tempfile::NamedTempFile::new().map_err(QemuError::system("make a temporary file"))?;
    std::fs::write(file.path(), xml).map_err(QemuError::system("write a temporary file"))?;
    let path = file.path().to_string_lossy().into_owned();
    Ok((file, path))
}

/// The models in `<secmodel><model>apparmor</model>`.
fn confinements_in(capabilities: &str) -> Vec<String> {
    let models = capabilities.split("<secmodel>").skip(1).filter_map(|rest| {
        let (_, after) = rest.split_once("<model>")?;
        after.split_once("</model>").map(|(model, _)| model.trim())
    });
    models.filter(|model| !matches!(*model, "dac" | "none")).map(str::to_owned).collect()
}

/// Reads `UUID NAME`; a name may contain spaces.
fn domain_in(line: &str) -> Option<DomainInfo> {
    let (uuid, name) = line.trim().split_once(' ')?;
    Some(DomainInfo { name: name.trim().to_owned(), uuid: uuid.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_read_with_whatever_names_they_have() {
        let domain = domain_in(" ad9c321d-8819-4d74-96f9-c8086490627e my old vm ").unwrap();
        assert_eq!((domain.name.as_str(), domain.uuid.len()), ("my old vm", 36));
        assert_eq!(domain_in(""), None);
    }

    #[test]
    fn what_confines_domains_is_read() {
        let said = "<host><secmodel>\n<model>apparmor</model>\n<doi>0</doi></secmodel>
            <secmodel><model>dac</model></secmodel></host><guest><model>q35</model></guest>";
        assert_eq!(confinements_in(said), ["apparmor"]);
        assert_eq!(confinements_in("<secmodel><model>none</model></secmodel><secmodel>"), [""; 0]);
    }

    #[tokio::test]
    async fn libvirtd_that_is_not_there_is_told() {
        let uri = "qemu+unix:///system?socket=/nonexistent/libvirt-sock";
        let error = Libvirt::connect(uri).await.unwrap_err().to_string();
        assert!(error.contains("/nonexistent/libvirt-sock"), "{error}");
    }
}
