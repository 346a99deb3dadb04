//! The trustee: a process that shares the pager's table of descriptors, and keeps it when the pager is killed.
//!
//! The userfaultfd of a forked child comes out of a `read`, and at that moment nobody has it but the reader. When its last
//! descriptor is closed, the child's missing pages read as zeros. So the table that the kernel puts it into must not end
//! with the pager: a second process has the same one. It begins before the pager has threads, and does nothing as long as
//! the pager lives. When that was killed, it closes all but the userfaultfds, so that files, sockets and locks are free as
//! after any death, and holds these until a successor has taken what it needs and ends it, or until their processes are gone.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rackmem_uapi::inherited::close_descriptor;
use rackmem_uapi::process::{exit_now, fork_sharing_descriptors};
use rackmem_uapi::uffd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_getfd, pidfd_open,
    pidfd_send_signal, waitpid,
};

/// How often a trustee without a pager looks whether anybody still needs it.
const LOOK: Duration = Duration::from_millis(200);

/// What `/proc/PID/fd` calls a userfaultfd.
const USERFAULTFD: &str = "anon_inode:[userfaultfd]";

/// A process for good: its number is given to another after its end, but never with the same time of birth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// In clock ticks since the machine's start.
    pub(crate) born: u64,
}

impl Identity {
    fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Field 22; the second is a name in brackets that may contain anything.
        let born =
            stat.rsplit(')').next().and_then(|rest| rest.split_ascii_whitespace().nth(19)?.parse().ok());
        Ok(Self { pid, born: born.ok_or(io::ErrorKind::InvalidData)? })
    }
}

/// The trustee of this process. Ended when this is dropped.
#[derive(Debug)]
pub struct Trustee {
    identity: Identity,
    /// This process, as the trustee sees it: in the table that both share.
    _pager: OwnedFd,
}

impl Trustee {
    /// Appoints one. To be called before this process has a second thread.
    pub fn appoint() -> io::Result<Self> {
        let pager = pidfd_open(getpid(), PidfdFlags::empty())?;
        let Some(pid) = fork_sharing_descriptors()? else { serve(&pager) };
        Ok(Self { identity: Identity::of(pid)?, _pager: pager })
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }
}

impl Drop for Trustee {
    fn drop(&mut self) {
        let Some(pid) = Pid::from_raw(self.identity.pid.cast_signed()) else { return };
        // It is our child and was not waited for, so that the number is its own. If it was killed, that is as good.
        let _ = kill_process(pid, Signal::KILL);
        let _ = waitpid(Some(pid), WaitOptions::empty());
    }
}

/// The trustee of a pager that is dead.
pub(crate) struct Left {
    pidfd: OwnedFd,
    pid: u32,
}

impl Left {
    /// `None`: it is gone too, or there was none.
    pub(crate) fn find(identity: Identity) -> Option<Self> {
        let pidfd = pidfd_open(Pid::from_raw(identity.pid.cast_signed())?, PidfdFlags::empty()).ok()?;
        // In this order: what the descriptor means cannot change any more.
        let is_it = Identity::of(identity.pid).is_ok_and(|found| found == identity);
        is_it.then_some(Self { pidfd, pid: identity.pid })
    }

    /// The userfaultfd that had this number in the pager.
    pub(crate) fn userfaultfd(&self, number: i32) -> Option<OwnedFd> {
        let link = fs::read_link(format!("/proc/{}/fd/{number}", self.pid)).ok()?;
        let is_one = link.to_str() == Some(USERFAULTFD);
        is_one.then(|| pidfd_getfd(&self.pidfd, number, PidfdGetfdFlags::empty()).ok())?
    }

    /// Everything that was needed has been taken.
    pub(crate) fn dismiss(self) {
        // It may have ended by itself.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// The trustee's life.
fn serve(pager: &OwnedFd) -> ! {
    let _ = rustix::thread::set_name(c"rackmem-trustee");
    // A signal to the pager's group is the pager's business. If they cannot be blocked, this is no trustee.
    if nix::sys::signal::SigSet::all().thread_block().is_err() {
        exit_now(1);
    }
    while !matches!(poll(&mut [PollFd::new(pager, PollFlags::IN)], None), Ok(1..)) {}
    loop {
        match release() {
            Ok(true) => std::thread::sleep(LOOK),
            _ => exit_now(0),
        }
    }
}

/// Closes whatever nobody needs. `false`: that was all.
fn release() -> io::Result<bool> {
    let mut needed = false;
    let numbers: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers {
        // The listing's own descriptor is gone by now.
        let Ok(link) = fs::read_link(format!("/proc/self/fd/{number}")) else { continue };
        let is_needed = link.to_str() == Some(USERFAULTFD) && uffd::is_alive(number);
        if !is_needed {
            let _ = close_descriptor(number); // fails only if it is closed already
        }
        needed |= is_needed;
    }
    Ok(needed)
}
