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

/// The limits of one project. What is not named is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota(pub BTreeMap<LatencyClass, Bytes>);

/// The limits of all projects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quotas {
    /// For projects that have none of their own.
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
        let quota = self.projects.get(project).unwrap_or(&self.default);
        let Some(&limit) = quota.0.get(&class) else { return Ok(()) };
        let used = rack.usage(project).get(class);
        if asked.0 == 0 || used.0.saturating_add(asked.0) <= limit.0 {
            return Ok(());
        }
        Err(RackError::Quota { project: project.to_owned(), class, limit, used, asked })
    }
}
