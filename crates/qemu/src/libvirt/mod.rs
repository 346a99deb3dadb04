//! Machines that libvirt looks after, whoever defined or started them. libvirt is reached by its own client program `virsh`, so
//! neither its C library nor its headers are needed to build, and a monitor command passes through it as it is
//! (`qemu-monitor-command`). Each call is a process of some 30 ms, which is nothing beside what it asks of a guest.

mod domain;
mod virsh;

pub use domain::LibvirtMachine;

use std::path::PathBuf;

use crate::{QemuError, Result};
use virsh::Virsh;

/// libvirt on this host, by default: `qemu:///system`.
pub const URI: &str = "qemu:///system";

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

    /// Defines a domain, or changes the definition of one.
    pub async fn define(&self, xml: &str) -> Result<()> {
        let file = tempfile::NamedTempFile::new().map_err(QemuError::system("make a temporary file"))?;
        std::fs::write(file.path(), xml).map_err(QemuError::system("write a temporary file"))?;
        let path: PathBuf = file.path().to_owned();
        self.virsh.run(&["define", "--file", &path.to_string_lossy()]).await.map(drop)
    }

    /// Forgets a domain; one that runs goes on until it ends.
    pub async fn undefine(&self, name_or_uuid: &str) -> Result<()> {
        self.virsh.run(&["undefine", "--domain", name_or_uuid]).await.map(drop)
    }
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

    #[tokio::test]
    async fn libvirtd_that_is_not_there_is_told() {
        let uri = "qemu+unix:///system?socket=/nonexistent/libvirt-sock";
        let error = Libvirt::connect(uri).await.unwrap_err().to_string();
        assert!(error.contains("/nonexistent/libvirt-sock"), "{error}");
    }
}
