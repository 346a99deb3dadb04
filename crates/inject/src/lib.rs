//! Puts a resident thread into a running process, and takes it out again.
//!
//! [`start`] stops one thread of the process by ptrace for less than a millisecond, has it map a page of code and a ring
//! of shared memory and clone the resident thread, and lets it go on exactly where it was. From then on there is no ptrace:
//! the pager writes system calls into the ring and the [`Resident`] thread runs them *inside* the process. The
//! resident thread has a descriptor table of its own, so the program's descriptors are neither held nor able to close
//! ours, and the userfaultfd that it holds lives on when the pager dies.
//!
//! This crate knows nothing of pages or policy.

mod bpf;
mod credentials;
mod gate;
mod guard;
mod needs;
mod pause;
mod procfs;
mod resident;
mod restart;
mod seccomp;
mod start;
mod stop;
mod tracee;
mod tracer;

pub use pause::paused;
pub use procfs::{ProcessStatus, Seccomp, process_status};
pub use resident::{Call, Resident, Session};
pub use start::{Held, dismiss, remove, start};
pub use tracer::Stopped;

use std::io;

/// Why a process could not be entered or left. The process itself is unharmed in every case.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// The process does not exist (any longer).
    #[error("process {0} has ended")]
    Gone(u32),
    /// ptrace was refused.
    #[error("process {pid} may not be traced by this user: {source}; 'rackmem doctor' says what is missing")]
    Refused {
        /// The process.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// No thread could be stopped in time.
    #[error(
        "no thread of process {0} could be stopped within {1} ms: it waits inside the kernel, for a disk or for a child \
         that has not begun its own program; it runs on as before; try again later"
    )]
    Busy(u32, u64),
    /// The process was told to stop, or its control group is frozen.
    #[error(
        "process {0} stands still: it was stopped by a signal (go on with 'kill -CONT {0}') or its control group is \
         frozen; let it go on and try again"
    )]
    Stopped(u32),
    /// Another process has the same memory, so that it would not belong to one process alone.
    #[error(
        "process {pid} shares its memory with process {other}, which would lose it when {pid} ends; try again when \
         {other} has ended or begun its own program"
    )]
    Shared {
        /// The process.
        pid: u32,
        /// The other one.
        other: u32,
    },
    /// A system call filter of the process stands in the way.
    #[error(
        "process {pid} forbids itself the system call {call} (by seccomp), which far memory needs; allow it in the \
         program's sandbox, or start the program without"
    )]
    Forbidden {
        /// The process.
        pid: u32,
        /// The first call that is needed and not allowed.
        call: &'static str,
    },
    /// It cannot be found out what a system call filter would do.
    #[error(
        "process {pid} filters its system calls (by seccomp), and what it allows cannot be read: {source}; that takes \
         CAP_SYS_ADMIN and a rackmem that is not filtered itself"
    )]
    FilterUnreadable {
        /// The process.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// A call that was run in the process failed.
    #[error("process {pid} could not run {call}: {source}")]
    Call {
        /// The process.
        pid: u32,
        /// Name of the system call.
        call: &'static str,
        /// What the kernel said inside the process.
        source: io::Error,
    },
    /// The process has no `syscall` instruction in its code.
    #[error("process {0} has no mapped system call instruction; only x86-64 programs can be entered")]
    NoSyscall(u32),
    /// The process runs 32-bit code.
    #[error("process {0} is a 32-bit program: only x86-64 programs can be given far memory")]
    NotX86_64(u32),
    /// The resident thread ended: the process ended or replaced its program.
    #[error("the resident thread of process {0} has ended")]
    ResidentGone(u32),
    /// Something on this side failed.
    #[error("{what}: {source}")]
    Local {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl InjectError {
    fn local(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Local { what, source }
    }
}
