//! What this kernel offers beyond Linux 6.1, found out at start and never assumed.

use std::os::fd::AsFd;

use rackmem_uapi::uffd::{self, USER_MODE_ONLY, feature};

use crate::PagerError;

/// The optional parts of the kernel that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probes {
    /// Optional userfaultfd features, as bits.
    pub(crate) features: u64,
    /// Pages can be moved out of a running program (6.8).
    pub(crate) can_move: bool,
    /// Lost pages can be poisoned (6.6).
    pub(crate) can_poison: bool,
}

/// Names that `without` accepts.
const NAMES: [(&str, u64); 2] = [("move", feature::MOVE), ("poison", feature::POISON)];

impl Probes {
    /// Asks the kernel. `without` switches features off by name, so that what older kernels do can be tried on newer ones.
    pub fn ask(without: &[String]) -> Result<Self, PagerError> {
        let probe = uffd::create(USER_MODE_ONLY).map_err(PagerError::Userfaultfd)?;
        let found = uffd::api(probe.as_fd(), 0).map_err(PagerError::Api)?;
        let mut features = found & (feature::MOVE | feature::POISON | feature::EXACT_ADDRESS);
        for name in without {
            let (_, bit) = NAMES
                .iter()
                .find(|(known, _)| known == name)
                .ok_or_else(|| PagerError::Feature(name.clone()))?;
            features &= !bit;
        }
        Ok(Self::with(features))
    }

    fn with(features: u64) -> Self {
        Self {
            features,
            can_move: features & feature::MOVE != 0,
            can_poison: features & feature::POISON != 0,
        }
    }

    /// Does without what the userfaultfds of a dead pager were not opened with.
    pub(crate) fn restrict(&mut self, features: u64) {
        *self = Self::with(self.features & features);
    }
}
