//! The estate: what a successor must know beyond the page table and the standby list to go on where a pager was killed.
//!
//! A memfd that every resident thread holds. It is written before what it says is relied upon, one word or one generation at
//! a time, so that whatever moment the pager dies at leaves something that can be read. It holds
//!
//! - the newest version that may have been handed out, and the newest serial number of a forked child;
//! - the extents of far memory, with the tokens that open them (`extents.rs`);
//! - the spaces: process, resident thread, addresses, registered ranges (`spaces.rs`);
//! - messages of userfaultfds that were read and not yet acted upon: the kernel writes them here itself (`events.rs`);
//! - which page of the batch that is leaving went where (`batch.rs`).
//!
//! Forked children's userfaultfds, which nobody else has, lie in a drawer beside it (`drawer.rs`), and until they do with the
//! trustee (`trustee.rs`). A lock tells a living pager
//! from a dead one. The program could scribble on the estate: what is read from it is checked, never a pointer.

mod batch;
mod drawer;
mod events;
mod extents;
mod spaces;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Release};

use rackmem_types::PageVersion;
use rackmem_uapi::shared::SharedMemory;
use rustix::fs::FlockOperation;

use crate::trustee::Identity;

pub(crate) use batch::Left;
pub(crate) use drawer::Drawers;
pub(crate) use events::{Phase, Place, Record};
pub(crate) use spaces::{InsideRecord, SpaceRecord, SpaceState};

/// Name of the memfd.
pub(crate) const NAME: &str = "rackmem-estate";

const MAGIC: u64 = u64::from_le_bytes(*b"rackmem\x7f");
/// Changes with every change of the layout, of the page table's and of the standby list's too.
const LAYOUT: u64 = 1;

const ROOT: usize = 24;
const VERSIONS: usize = 32;
const SERIALS: usize = 40;
const FEATURES: usize = 48;
const DRAWERS: usize = 64;
const TRUSTEE: usize = 128;
const BATCH: usize = 4096;
const PAGES: usize = 1 << 20;
const EXTENTS: usize = 16 << 20;
const SPACES: usize = 64 << 20;
const AREAS: usize = 128 << 20;
/// Nearly all of it is never touched, and costs nothing.
const LEN: usize = AREAS + spaces::SPACES_MAX * spaces::AREA_BYTES;

/// Versions and serial numbers are reserved so many at a time: a store to memory for 65,536 pages.
const RESERVE: u64 = 1 << 16;

/// Why a successor cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EstateError {
    /// See the text.
    #[error("its pager is alive, or another one is taking over")]
    Alive,
    /// See the text.
    #[error("what its pager left is of another version of rackmem; take over with the version that attached")]
    Version,
    /// See the text.
    #[error("what its pager left is damaged ({0})")]
    Damaged(&'static str),
    /// See the text.
    #[error("what its pager left cannot be opened: {0}")]
    Io(#[from] io::Error),
}

/// See the module.
pub(crate) struct Estate {
    memory: SharedMemory,
    /// An open file of its own: its lock ends with this process, whoever else holds the memfd.
    _lock: File,
    pub(crate) drawers: Drawers,
    versions: u64,
    serials: u64,
    /// By space: messages in use, and how many of them wait.
    journals: Vec<events::Journal>,
}

impl Estate {
    pub(crate) fn new() -> io::Result<Self> {
        let memory = SharedMemory::create(NAME, LEN)?;
        let lock = reopen(memory.as_fd())?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let drawers = Drawers::new()?;
        let mut estate = Self { memory, _lock: lock, drawers, versions: 0, serials: 0, journals: Vec::new() };
        for (i, inode) in estate.drawers.inodes()?.into_iter().enumerate() {
            estate.put(DRAWERS + i * 8, inode);
        }
        estate.put(8, LAYOUT);
        estate.put(16, LEN as u64);
        estate.put(0, MAGIC);
        Ok(estate)
    }

    /// Takes over what a dead pager left in `file`, opened anew. `drawers` gives the sockets with these inodes.
    pub(crate) fn inherit(
        file: File,
        drawers: impl FnOnce(&[u64; drawer::SOCKETS]) -> io::Result<[OwnedFd; drawer::SOCKETS]>,
    ) -> Result<(Self, Vec<(u64, OwnedFd)>), EstateError> {
        let lock = reopen(file.as_fd())?;
        take_lock(&lock)?;
        if file.metadata()?.len() < AREAS as u64 {
            return Err(EstateError::Version);
        }
        let len = LEN.min(file.metadata()?.len() as usize);
        let memory = SharedMemory::map(file.into(), len)?;
        let get = |offset: usize| memory.word(offset).load(Acquire);
        if get(0) != MAGIC {
            return Err(EstateError::Damaged("it does not begin as it should"));
        }
        if (get(8), get(16), len) != (LAYOUT, LEN as u64, LEN) {
            return Err(EstateError::Version);
        }
        let inodes = std::array::from_fn(|i| get(DRAWERS + i * 8));
        let (drawers, children) = Drawers::inherit(drawers(&inodes)?)?;
        let (versions, serials) = (get(VERSIONS), get(SERIALS));
        let mut estate = Self { memory, _lock: lock, drawers, versions, serials, journals: Vec::new() };
        estate.journals_load();
        Ok((estate, children))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Everything that a resident thread is to hold on its account.
    pub(crate) fn heirlooms(&self) -> io::Result<Vec<OwnedFd>> {
        let mut all = vec![self.fd().try_clone_to_owned()?];
        all.extend(self.drawers.heirlooms()?);
        Ok(all)
    }

    /// The target that the pager was started for, and the optional features that its userfaultfds have.
    pub(crate) fn root_set(&mut self, pid: u32, features: u64) {
        self.put(FEATURES, features);
        self.put(ROOT, pid.into());
    }

    pub(crate) fn root(&self) -> u32 {
        self.get(ROOT) as u32
    }

    pub(crate) fn features(&self) -> u64 {
        self.get(FEATURES)
    }

    /// The process that keeps the pager's descriptors when it is killed; 0 is none.
    pub(crate) fn trustee_set(&mut self, trustee: Option<Identity>) {
        let Identity { pid, born } = trustee.unwrap_or_default();
        self.put(TRUSTEE, 0);
        self.put(TRUSTEE + 8, born);
        self.put(TRUSTEE, pid.into());
    }

    pub(crate) fn trustee(&self) -> Identity {
        Identity { pid: self.get(TRUSTEE) as u32, born: self.get(TRUSTEE + 8) }
    }

    /// No version above this one has been handed out.
    pub(crate) fn versions(&self) -> PageVersion {
        self.versions
    }

    /// `version` is about to be handed out.
    pub(crate) fn version_note(&mut self, version: PageVersion) {
        if version > self.versions {
            self.versions = version + RESERVE;
            self.put(VERSIONS, self.versions);
        }
    }

    pub(crate) fn serials(&self) -> u64 {
        self.serials
    }

    /// `serial` is about to be handed out.
    pub(crate) fn serial_note(&mut self, serial: u64) {
        if serial > self.serials {
            self.serials = serial + RESERVE;
            self.put(SERIALS, self.serials);
        }
    }

    fn get(&self, offset: usize) -> u64 {
        self.memory.word(offset).load(Acquire)
    }

    fn put(&mut self, offset: usize, value: u64) {
        self.memory.word(offset).store(value, Release);
    }
}

/// Somebody who merely looks whether there is a lock holds it for a moment.
fn take_lock(lock: &File) -> Result<(), EstateError> {
    const TRIES_MAX: u32 = 5;
    for _ in 0..TRIES_MAX {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(std::time::Duration::from_millis(2)),
            result => return Ok(result.map_err(io::Error::from)?),
        }
    }
    Err(EstateError::Alive)
}

/// The same file by an open file of its own.
fn reopen(fd: BorrowedFd<'_>) -> io::Result<File> {
    File::options().read(true).write(true).open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Whether a living pager holds the estate.
pub(crate) fn is_held(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => rustix::fs::flock(file, FlockOperation::Unlock).map(|()| false).map_err(Into::into),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inherit(estate: &Estate, sockets: [OwnedFd; drawer::SOCKETS]) -> Result<Estate, EstateError> {
        let file = reopen(estate.fd()).unwrap();
        Estate::inherit(file, |_| Ok(sockets)).map(|(estate, _)| estate)
    }

    fn sockets(estate: &Estate) -> [OwnedFd; drawer::SOCKETS] {
        estate.drawers.heirlooms().unwrap().try_into().unwrap()
    }

    fn bequeath(estate: Estate) -> (Estate, [OwnedFd; drawer::SOCKETS]) {
        let sockets = sockets(&estate);
        let Estate { memory, drawers, versions, serials, journals, .. } = estate;
        let lock = reopen(memory.as_fd()).unwrap(); // not locked: the old one is closed here
        (Estate { memory, _lock: lock, drawers, versions, serials, journals }, sockets)
    }

    #[test]
    fn a_living_pager_is_not_taken_over_and_of_two_successors_one_wins() {
        let estate = Estate::new().unwrap();
        let file = reopen(estate.fd()).unwrap();
        assert!(is_held(&file).unwrap());
        assert!(matches!(inherit(&estate, sockets(&estate)), Err(EstateError::Alive)));
        let (left, sockets) = bequeath(estate);
        assert!(!is_held(&file).unwrap());
        let winner = inherit(&left, sockets).unwrap();
        let again = left.drawers.heirlooms().unwrap().try_into().unwrap();
        assert!(matches!(inherit(&left, again), Err(EstateError::Alive)));
        drop(winner);
    }

    #[test]
    fn what_was_handed_out_is_not_handed_out_again() {
        let mut estate = Estate::new().unwrap();
        estate.root_set(77, 5);
        estate.version_note(1);
        estate.version_note(RESERVE + 2);
        estate.serial_note(1);
        estate.trustee_set(Some(Identity { pid: 12, born: 34 }));
        let (left, sockets) = bequeath(estate);
        let heir = inherit(&left, sockets).unwrap();
        assert!(heir.versions() >= RESERVE + 2 && heir.serials() >= 1);
        assert_eq!((heir.root(), heir.features()), (77, 5));
        assert_eq!(heir.trustee(), Identity { pid: 12, born: 34 });
    }

    #[test]
    fn a_foreign_or_damaged_estate_is_refused() {
        let (mut left, first) = bequeath(Estate::new().unwrap());
        let again = || left.drawers.heirlooms().unwrap().try_into().unwrap();
        let (second, third) = (again(), again());
        left.put(8, LAYOUT + 1);
        assert!(matches!(inherit(&left, first), Err(EstateError::Version)));
        left.put(0, 7);
        assert!(matches!(inherit(&left, second), Err(EstateError::Damaged(_))));
        rustix::fs::ftruncate(left.fd(), 4096).unwrap();
        assert!(matches!(inherit(&left, third), Err(EstateError::Version)));
    }
}
