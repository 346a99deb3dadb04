//! The libvirt of this brick, if this build has one (feature `libvirt`): all of the agent that knows libvirt is here, twice, with
//! [`Domains`] that are driven through it and [`Domains`] that say that there is none.

#[cfg(any(test, not(feature = "libvirt")))]
#[cfg_attr(feature = "libvirt", allow(dead_code, reason = "what it refuses is tested in every build"))]
mod absent;
#[cfg(feature = "libvirt")]
mod domains;

#[cfg(not(feature = "libvirt"))]
pub(crate) use absent::Domains;
#[cfg(feature = "libvirt")]
pub(crate) use domains::Domains;

use rackmem_qemu::ProcessIdentity;

/// libvirt on this host, by default.
pub const URI: &str = "qemu:///system";

/// A domain that somebody else started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// libvirt's name for it.
    pub(crate) name: String,
    /// Its process.
    pub(crate) process: ProcessIdentity,
}
