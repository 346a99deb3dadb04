//! Whether a thread's own system call filters let us in.
//!
//! A filter that forbids one of our calls may kill the program for it, so the filters are read and asked before the first
//! call is made. Nothing is changed here.

use std::io;

use nix::unistd::Pid;
use rackmem_uapi::process::seccomp_filter;

use crate::InjectError;
use crate::bpf::{Answer, Instruction, Query, answer};
use crate::needs;
use crate::procfs::Seccomp;

/// Fails unless `thread`, which stands still, may make every call that we need, and its children as well.
pub(crate) fn check(process: u32, thread: Pid, kind: Seccomp) -> Result<(), InjectError> {
    let filters = match kind {
        Seccomp::Off => return Ok(()),
        Seccomp::Strict => return Err(InjectError::Forbidden { pid: process, call: "mmap" }),
        Seccomp::Filter => {
            filters(thread).map_err(|source| InjectError::FilterUnreadable { pid: process, source })?
        }
    };
    match forbidden(&filters) {
        Some(call) => Err(InjectError::Forbidden { pid: process, call }),
        None => Ok(()),
    }
}

/// All filters of a thread; each of them is asked about every call.
fn filters(thread: Pid) -> io::Result<Vec<Vec<Instruction>>> {
    let mut filters = Vec::new();
    loop {
        match seccomp_filter(thread.as_raw(), filters.len()) {
            Ok(filter) => filters.push(filter.into_iter().map(Instruction::from_bytes).collect()),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(filters),
            Err(error) => return Err(error),
        }
    }
}

/// The first call that we need and may not make.
fn forbidden(filters: &[Vec<Instruction>]) -> Option<&'static str> {
    let strictest =
        |query: &Query| filters.iter().map(|filter| answer(filter, query)).min().unwrap_or(Answer::Allowed);
    needs::ALL.iter().find(|need| !need.is_met(strictest)).map(|need| need.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `if number == NUMBER return VALUE; return allow`
    fn all_but(number: i64, value: u32) -> Vec<Instruction> {
        let bytes = |code: u16, jumps: [u8; 2], k: u32| {
            let ([c0, c1], [k0, k1, k2, k3]) = (code.to_ne_bytes(), k.to_ne_bytes());
            Instruction::from_bytes([c0, c1, jumps[0], jumps[1], k0, k1, k2, k3])
        };
        vec![
            bytes(0x20, [0, 0], 0),
            bytes(0x15, [0, 1], number as u32),
            bytes(0x06, [0, 0], value),
            bytes(0x06, [0, 0], 0x7fff_0000),
        ]
    }

    #[test]
    fn the_strictest_of_several_filters_counts() {
        let (kill, refuse) = (0, 0x0005_0001);
        let harmless = all_but(libc::SYS_execve, kill);
        assert_eq!(forbidden(std::slice::from_ref(&harmless)), None);
        assert_eq!(forbidden(&[harmless.clone(), all_but(libc::SYS_madvise, refuse)]), Some("madvise"));
        assert_eq!(forbidden(&[all_but(libc::SYS_clone, kill), harmless]), Some("clone"));
    }

    #[test]
    fn what_can_be_done_without_may_be_refused_but_not_killed_for() {
        assert_eq!(forbidden(&[all_but(libc::SYS_userfaultfd, 0x0005_0001)]), None);
        assert_eq!(forbidden(&[all_but(libc::SYS_userfaultfd, 0)]), Some("userfaultfd"));
    }
}
