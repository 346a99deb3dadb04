//! A resident thread seen from outside, by one who does not know it yet: found by what it holds, and its descriptors.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::{PagerError, estate};

/// `PIDFD_THREAD` of `linux/pidfd.h` (6.9).
const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL as u32);

/// Name of the ring's memfd.
const RING: &str = "rackmem";

/// A thread that holds what a pager left.
pub(super) struct Holder {
    pub(super) pid: u32,
    pub(super) thread: u32,
    pidfd: OwnedFd,
    /// Number and target of each descriptor.
    links: Vec<(i32, String)>,
}

/// The estate that some thread of process `pid` holds, opened anew, and that thread. `None`: there is none.
pub(super) fn estate_of(pid: u32) -> io::Result<Option<(u32, File)>> {
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Some(thread) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let links = links(pid, thread).unwrap_or_default(); // it may have ended
        if let Some(number) = find(&links, &memfd(estate::NAME)) {
            return Ok(Some((thread, open(pid, thread, number)?)));
        }
    }
    Ok(None)
}

impl Holder {
    pub(super) fn new(pid: u32, thread: u32) -> Result<Self, PagerError> {
        let raw = Pid::from_raw(thread as i32).ok_or(PagerError::NoProcess(pid))?;
        let pidfd = match pidfd_open(raw, THREAD) {
            Err(rustix::io::Errno::INVAL) => return Err(PagerError::TakeOverKernel),
            result => result.map_err(|_| PagerError::NoProcess(pid))?,
        };
        let links = links(pid, thread).map_err(PagerError::Memory)?;
        Ok(Self { pid, thread, pidfd, links })
    }

    /// The memfd with this name, opened anew.
    pub(super) fn memfd(&self, name: &str) -> io::Result<OwnedFd> {
        let number = find(&self.links, &memfd(name)).ok_or(io::ErrorKind::NotFound)?;
        Ok(open(self.pid, self.thread, number)?.into())
    }

    pub(super) fn ring(&self) -> io::Result<OwnedFd> {
        self.memfd(RING)
    }

    /// A copy of the socket with this inode number.
    pub(super) fn socket(&self, inode: u64) -> io::Result<OwnedFd> {
        let number = find(&self.links, &format!("socket:[{inode}]")).ok_or(io::ErrorKind::NotFound)?;
        self.descriptor(number)
    }

    /// A copy of the userfaultfd with this number.
    pub(super) fn userfaultfd(&self, number: i32) -> io::Result<OwnedFd> {
        let is_one = |(known, link): &(i32, String)| *known == number && link.contains("[userfaultfd]");
        self.links.iter().find(|link| is_one(link)).ok_or(io::ErrorKind::NotFound)?;
        self.descriptor(number)
    }

    /// The thread itself: readable once it has ended.
    pub(super) fn line(&self) -> io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }

    fn descriptor(&self, number: i32) -> io::Result<OwnedFd> {
        Ok(pidfd_getfd(&self.pidfd, number, PidfdGetfdFlags::empty())?)
    }
}

fn memfd(name: &str) -> String {
    format!("/memfd:{name} (deleted)")
}

fn find(links: &[(i32, String)], wanted: &str) -> Option<i32> {
    links.iter().find(|(_, link)| link == wanted).map(|(number, _)| *number)
}

fn links(pid: u32, thread: u32) -> io::Result<Vec<(i32, String)>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task/{thread}/fd"))?;
    let link = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, fs::read_link(entry.path()).ok()?.to_str()?.to_owned()))
    };
    Ok(entries.filter_map(link).collect())
}

fn open(pid: u32, thread: u32, number: i32) -> io::Result<File> {
    File::options().read(true).write(true).open(format!("/proc/{pid}/task/{thread}/fd/{number}"))
}
