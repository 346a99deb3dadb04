//! No libvirt: this agent was built without it. Whatever needs it is refused; all else finds nothing.

use std::path::PathBuf;

use rackmem_api::problem::ProblemType;
use rackmem_api::{Problem, VmName};
use rackmem_qemu::{MachineConfig, MachineFiles, ProcessIdentity, Qemu};
use uuid::Uuid;

use super::Found;
use crate::seen::Seen;

/// The domains of no libvirt.
#[derive(Debug)]
pub(crate) struct Domains;

/// What is refused, with what can be done instead.
fn absent(instead: &str) -> Problem {
    let detail = format!(
        "this build has no libvirt: {instead}, or take a rackmem that was built with the feature 'libvirt', as it is by default"
    );
    Problem::new(ProblemType::Unsupported, detail)
}

/// A VM that an agent with libvirt has made.
fn made_by_another<T>() -> Result<T, Problem> {
    Err(absent("look after this machine by 'virsh'"))
}

#[allow(clippy::unused_async, reason = "the domains of a libvirt are waited for")]
impl Domains {
    pub(crate) fn new(_uri: String) -> Self {
        Self
    }

    pub(crate) async fn check(&self, _name: &VmName) -> Result<(), Problem> {
        Err(absent("leave out '--driver libvirt'"))
    }

    pub(crate) async fn define(
        &self,
        _uuid: Uuid,
        _config: &MachineConfig,
        _files: &MachineFiles,
        _qemu: &Qemu,
    ) -> Result<(), Problem> {
        made_by_another()
    }

    pub(crate) async fn start(&self, _uuid: Uuid) -> Result<Seen, Problem> {
        made_by_another()
    }

    pub(crate) async fn find(&self, _uuid: Uuid) -> Result<Option<Seen>, Problem> {
        made_by_another()
    }

    pub(crate) async fn machine(&self, _name_or_uuid: &str) -> Result<Seen, Problem> {
        made_by_another()
    }

    pub(crate) async fn end(&self, _uuid: Uuid) -> Result<Option<ProcessIdentity>, Problem> {
        made_by_another()
    }

    pub(crate) async fn undefine(&self, _uuid: Uuid) -> Result<(), Problem> {
        made_by_another()
    }

    pub(crate) async fn was_switched_off(&self, _uuid: Uuid) -> bool {
        false
    }

    pub(crate) async fn foreign(&self, _domain: &str) -> Result<Option<Found>, Problem> {
        Ok(None)
    }

    pub(crate) fn may_attach(&self, name: &str) -> Result<(), Problem> {
        Err(absent(&format!("leave '{name}' alone, which is a domain of libvirt's")))
    }

    pub(crate) fn log_of(&self, _name: &VmName) -> Result<PathBuf, Problem> {
        made_by_another()
    }

    pub(crate) fn last_words(&self, _name: &VmName) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_needs_libvirt_is_refused_and_told_why() {
        let domains = Domains::new(super::super::URI.to_owned());
        let name: VmName = "web1".parse().unwrap();
        assert_eq!(domains.foreign("web1").await, Ok(None));
        let (made, attached) =
            (domains.check(&name).await.unwrap_err(), domains.may_attach("web1").unwrap_err());
        assert_eq!((made.kind, attached.kind), (ProblemType::Unsupported, ProblemType::Unsupported));
        assert!(made.detail.starts_with("this build has no libvirt: leave out '--driver libvirt'"), "{made}");
        assert!(attached.detail.contains("'web1' alone, which is a domain of libvirt's"), "{attached}");
        // What another agent has made is not taken for gone.
        assert!(domains.find(Uuid::nil()).await.is_err() && domains.undefine(Uuid::nil()).await.is_err());
    }
}
