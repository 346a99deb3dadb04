//! The system calls that we make in other processes: what a process's own filter has to allow before it is entered.
//!
//! Arguments that differ from case to case (addresses, descriptors, leftovers in unused registers) are `None`.

use std::sync::LazyLock;

use rackmem_uapi::resident::RING_BYTES;
use rackmem_uapi::uffd::{UFFDIO_MOVE, USERFAULTFD_IOC_NEW};

use crate::bpf::{Answer, Query};

/// Bytes of the code page.
pub(crate) const CODE_BYTES: u64 = 4096;

/// What the resident thread shares with the process: what makes it a thread of it, and nothing more. With `CLONE_FS` it
/// would keep the program from entering another mount namespace, and follow its `chdir`; descriptors are its own so that
/// neither side holds or closes those of the other.
pub(crate) const CLONE_FLAGS: u64 = (libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u64;

/// Flags of the code page's mapping.
pub(crate) const PRIVATE: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
pub(crate) const EXECUTABLE: u64 = (libc::PROT_READ | libc::PROT_EXEC) as u64;
pub(crate) const WRITABLE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
pub(crate) const SOCKET_KIND: u64 = (libc::SOCK_STREAM | libc::SOCK_CLOEXEC) as u64;

/// A system call that we make in other processes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    pub(crate) name: &'static str,
    pub(crate) query: Query,
    /// The least that a filter may answer: some calls have a substitute, or can be done without.
    pub(crate) least: Answer,
}

fn must<const N: usize>(name: &'static str, number: i64, arguments: [Option<u64>; N]) -> Need {
    let mut all = [None; 6];
    all[..N].copy_from_slice(&arguments);
    Need { name, query: Query { number: number as u32, arguments: all }, least: Answer::Allowed }
}

fn may<const N: usize>(name: &'static str, number: i64, arguments: [Option<u64>; N]) -> Need {
    Need { least: Answer::Refused, ..must(name, number, arguments) }
}

impl Need {
    /// Whether a filter that answers so leaves the way free.
    pub(crate) fn is_met(&self, answer: impl Fn(&Query) -> Answer) -> bool {
        answer(&self.query) >= self.least
    }
}

/// The calls of the way in, and those that resident threads are asked for.
pub(crate) static ALL: LazyLock<Vec<Need>> = LazyLock::new(|| {
    let (none, zero) = (None, Some(0));
    let advice = |advice: i32| [none, none, Some(advice as u64)];
    vec![
        must("mmap", libc::SYS_mmap, [zero, none, Some(EXECUTABLE), Some(PRIVATE), Some(u64::MAX), zero]),
        must("memfd_create", libc::SYS_memfd_create, [none, Some(libc::MFD_CLOEXEC.into())]),
        must("ftruncate", libc::SYS_ftruncate, [none, Some(RING_BYTES as u64)]),
        must("mmap", libc::SYS_mmap, [zero, none, Some(WRITABLE), Some(libc::MAP_SHARED as u64), none, zero]),
        must("socketpair", libc::SYS_socketpair, [Some(libc::AF_UNIX as u64), Some(SOCKET_KIND), zero, none]),
        must("clone", libc::SYS_clone, [Some(CLONE_FLAGS), none, zero, zero, zero]),
        must("close", libc::SYS_close, [none]),
        must("munmap", libc::SYS_munmap, [none]),
        must("futex", libc::SYS_futex, [none, Some(libc::FUTEX_WAIT as u64), none, zero]),
        must("futex", libc::SYS_futex, [none, Some(libc::FUTEX_WAKE as u64), Some(1)]),
        must("sched_yield", libc::SYS_sched_yield, []),
        must("close_range", libc::SYS_close_range, [none, none, zero]),
        must("sendmsg", libc::SYS_sendmsg, [none, none, zero]),
        must("recvmsg", libc::SYS_recvmsg, [none, none, Some(libc::MSG_CMSG_CLOEXEC as u64)]),
        must("mmap", libc::SYS_mmap, [zero, none, Some(WRITABLE), Some(PRIVATE), Some(u64::MAX), zero]),
        must("madvise", libc::SYS_madvise, advice(libc::MADV_DONTFORK)),
        must("madvise", libc::SYS_madvise, advice(libc::MADV_WIPEONFORK)),
        must("madvise", libc::SYS_madvise, advice(libc::MADV_DONTNEED)),
        must("ioctl", libc::SYS_ioctl, [none, Some(UFFDIO_MOVE.into())]),
        must("exit", libc::SYS_exit, [zero]),
        may("madvise", libc::SYS_madvise, advice(libc::MADV_NOHUGEPAGE)),
        may("prctl", libc::SYS_prctl, [Some(libc::PR_SET_NAME as u64)]),
        may("chdir", libc::SYS_chdir, []),
        may("capset", libc::SYS_capset, []),
        // One of the two opens the userfaultfd.
        may("userfaultfd", libc::SYS_userfaultfd, [Some((libc::O_CLOEXEC | libc::O_NONBLOCK) as u64)]),
        may("ioctl", libc::SYS_ioctl, [none, Some(USERFAULTFD_IOC_NEW.into())]),
    ]
});
