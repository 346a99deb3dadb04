//! How much of the racks a project may have.

use std::collections::BTreeMap;

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};

use crate::{LatencyClass, Rack, RackError, Request};

/// What a project has or may have: local memory, and far memory per class. Far memory counts in the class that was asked for,
/// whatever nearer place it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage([u64; LatencyClass::ALL.len()]);

impl Usage {
    /// Memory of `class`.
    pub fn get(&self, class: LatencyClass) -> Bytes {
        Bytes::from_pages(self.0[class as usize])
    }

    pub(crate) fn add(&mut self, class: LatencyClass, pages: u64) {
        self.0[class as usize] += pages;
    }

    pub(crate) fn subtract(&mut self, class: LatencyClass, pages: u64) {
        self.0[class as usize] -= pages;
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.0 == [0; LatencyClass::ALL.len()]
    }
}

/// Limits by class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota(pub BTreeMap<LatencyClass, Bytes>);

/// The limits of all projects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// For each class of which a project has no limit of its own.
    pub default: Quota,
    /// By project.
    pub projects: BTreeMap<String, Quota>,
}

impl Quotas {
    /// Whether the project may have what it asks for beside what it has.
    pub fn check(&self, rack: &Rack, request: &Request) -> Result<(), RackError> {
        self.check_more(rack, &request.project, LatencyClass::Local, request.local)?;
        self.check_more(rack, &request.project, request.class, request.memory)
    }

    /// Whether the project may have `asked` more of `class`.
    pub fn check_more(
        &self,
        rack: &Rack,
        project: &str,
        class: LatencyClass,
        asked: Bytes,
    ) -> Result<(), RackError> {
        let own = self.projects.get(project).and_then(|quota| quota.0.get(&class));
        let Some(&limit) = own.or_else(|| self.default.0.get(&class)) else { return Ok(()) };
        let used = rack.usage(project).get(class);
        if asked.0 == 0 || used.0.saturating_add(asked.0) <= limit.0 {
            return Ok(());
        }
        Err(RackError::Quota { project: project.to_owned(), class, limit, used, asked })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]
mod tests {
    use super::*;

    #[test]
    fn what_a_project_does_not_name_is_as_by_default() {
        let quotas: Quotas = serde_json::from_str(
            r#"{"default": {"interrack": 0, "rack": 4096}, "projects": {"p1": {"rack": 8192}}}"#,
        )
        .unwrap();
        let check = |project: &str, class, bytes| {
            quotas.check_more(&Rack::default(), project, class, Bytes(bytes)).is_ok()
        };
        for project in ["p1", "p2"] {
            assert!(!check(project, LatencyClass::Interrack, 4096), "{project}");
            assert!(check(project, LatencyClass::Tray, 1 << 40), "{project}: nobody limits it");
        }
        assert!(check("p1", LatencyClass::Rack, 8192) && !check("p1", LatencyClass::Rack, 12288));
        assert!(check("p2", LatencyClass::Rack, 4096) && !check("p2", LatencyClass::Rack, 8192));
    }

    #[test]
    fn both_parts_may_be_left_out_and_no_other_is_taken_for_one() {
        assert_eq!(serde_json::from_str::<Quotas>("{}").unwrap(), Quotas::default());
        for part in [r#"{"default": {"tray": 1}}"#, r#"{"projects": {"p1": {"tray": 1}}}"#] {
            assert_ne!(serde_json::from_str::<Quotas>(part).unwrap(), Quotas::default(), "{part}");
        }
        assert!(serde_json::from_str::<Quotas>(r#"{"project": {"p1": {"tray": 1}}}"#).is_err());
    }
}
