//! Prepares an entered process for paging: its userfaultfd, the staging area, the badge, and what must outlive the pager.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rackmem_inject::{InjectError, Resident, Session};
use rackmem_uapi::uffd::{self, USERFAULTFD_IOC_NEW, feature};

use crate::core::PAGE;
use crate::kernel::{Mapping, Userfaultfd};
use crate::space::{Inside, STAGING_BYTES};
use crate::{PagerError, Probes};

/// What is asked of every userfaultfd; the rest is used where found.
const FEATURES: u64 = feature::EVENT_FORK
    | feature::EVENT_REMAP
    | feature::EVENT_REMOVE
    | feature::EVENT_UNMAP
    | feature::THREAD_ID;

/// Opens a userfaultfd inside the process and prepares it. Gives it with what is inside now.
pub(crate) fn enter(
    resident: Arc<Resident>,
    probes: &Probes,
    heirlooms: &[OwnedFd],
) -> Result<(Arc<dyn Mapping>, Inside), PagerError> {
    let (number, uffd): (i32, Arc<dyn Mapping>) = {
        let mut session = resident.session();
        let number = open(&mut session)?;
        let uffd = session.take(number)?;
        uffd::api(uffd.as_fd(), FEATURES | probes.features).map_err(PagerError::Api)?;
        (number, Arc::new(Userfaultfd(uffd)))
    };
    let badge = map(&resident, PAGE, libc::MADV_WIPEONFORK)?;
    uffd.register(badge, PAGE).map_err(PagerError::Register)?;
    let inside = furnish(resident, number, badge, &*uffd, heirlooms)?;
    Ok((uffd, inside))
}

/// Prepares a forked child that came with a userfaultfd of its own.
pub(crate) fn enter_child(
    resident: Arc<Resident>,
    uffd: &dyn Mapping,
    badge: u64,
    heirlooms: &[OwnedFd],
) -> Result<Inside, PagerError> {
    let number = resident.session().give(uffd.as_fd())?;
    furnish(resident, number, badge, uffd, heirlooms)
}

fn furnish(
    resident: Arc<Resident>,
    number: i32,
    badge: u64,
    uffd: &dyn Mapping,
    heirlooms: &[OwnedFd],
) -> Result<Inside, PagerError> {
    let staging = map(&resident, STAGING_BYTES, libc::MADV_DONTFORK)?;
    uffd.register(staging, STAGING_BYTES).map_err(PagerError::Register)?;
    let mut session = resident.session();
    // Held for whoever takes over when this pager dies: which page is where, and the pages on their way out.
    session.give(resident.ring())?;
    for heirloom in heirlooms {
        session.give(heirloom.as_fd())?;
    }
    drop(session);
    Ok(Inside { resident, uffd: number, staging, badge })
}

/// `userfaultfd(2)` inside the process, or, where it lacks the privilege, by the device that we may open for it.
fn open(session: &mut Session<'_>) -> Result<i32, PagerError> {
    let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK) as u64;
    let refused = match session.call("userfaultfd", libc::SYS_userfaultfd, [flags, 0, 0, 0, 0, 0]) {
        Ok(number) => return Ok(number as i32),
        Err(refused) => refused,
    };
    let Ok(device) = File::open("/dev/userfaultfd") else { return Err(refused.into()) };
    let device = session.give(device.as_fd())?;
    let number = session.call(
        "ioctl",
        libc::SYS_ioctl,
        [device as u64, USERFAULTFD_IOC_NEW.into(), flags, 0, 0, 0],
    )?;
    session.call("close", libc::SYS_close, [device as u64, 0, 0, 0, 0, 0])?;
    Ok(number as i32)
}

/// Maps private anonymous memory inside the process, without huge pages, with `advice` for forks.
fn map(resident: &Resident, len: u64, advice: i32) -> Result<u64, InjectError> {
    let mut session = resident.session();
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let address = session.call("mmap", libc::SYS_mmap, [0, len, protection, flags, u64::MAX, 0])?;
    session.call("madvise", libc::SYS_madvise, [address, len, advice as u64, 0, 0, 0])?;
    // Refused where the kernel has no huge pages, which is as well.
    let _ = session.call("madvise", libc::SYS_madvise, [address, len, libc::MADV_NOHUGEPAGE as u64, 0, 0, 0]);
    Ok(address)
}
