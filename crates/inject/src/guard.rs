//! What a thread with our registers needs if its tracer is killed: a way back.
//!
//! The kernel lets a traced thread go when its tracer dies, wherever it is. So a call for us is made at an instruction behind
//! which stands code that puts everything back ([`rackmem_uapi::resident::guard`]). The first such call gets us memory in the
//! process, so that there is none for the code yet: it is written into the zeros that fill the last page of the vdso, code of the
//! kernel's that nobody else writes to. They are made zeros again when the thread goes on. A process without a
//! vdso, or without room there, is entered without a guard.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use nix::libc::user_regs_struct;
use rackmem_uapi::resident::{GuardState, guard, guard_code_bytes};

use crate::{procfs, restart};

/// Zeros that are left alone before the guard: they may be the end of something.
const MARGIN: usize = 256;

/// How much of the vdso's end is looked at.
const TAIL: usize = 4096;

/// A guard in a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard {
    /// Where its `syscall` instruction is.
    pub(crate) address: u64,
}

impl Guard {
    /// Writes one that will bring `state` back, for a thread of process `pid` that is stopped at `rip`. `None`: there is no room
    /// for it, or it may not be written.
    pub(crate) fn place(pid: u32, rip: u64, memory: &File, state: &GuardState) -> Option<Self> {
        let (start, end) = procfs::executable_mappings(state.thread as u32).ok()?.0?;
        let tail = TAIL.min((end - start) as usize);
        let begin = end - tail as u64;
        let mut bytes = vec![0; tail];
        memory.read_exact_at(&mut bytes, begin).ok()?;
        let is_left = |at: usize, owner: u64| {
            let range = begin + at as u64..begin + (at + guard().len()) as u64;
            let is_there = |rip| range.contains(&rip);
            if owner == state.thread { !is_there(rip) } else { has_left(pid, owner, is_there) }
        };
        let address = begin + room(&bytes, is_left)? as u64;
        let mut code = guard().to_vec();
        code[guard_code_bytes()..].copy_from_slice(&state.bytes());
        memory.write_all_at(&code, address).ok()?;
        Some(Self { address })
    }

    /// Makes it zeros again. No thread may be there.
    pub(crate) fn clear(self, memory: &File) {
        // Fails only if the process has gone.
        let _ = memory.write_all_at(&vec![0; guard().len()], self.address);
    }
}

/// Where in the last bytes of the vdso a guard fits. Some may stand there, left by tracers that were killed, or by a fork: one
/// is written over if `is_left` says of the place and the thread that it was for that nobody will come by any more.
fn room(tail: &[u8], is_left: impl Fn(usize, u64) -> bool) -> Option<usize> {
    let (len, code) = (guard().len(), &guard()[..guard_code_bytes()]);
    let thread = guard_code_bytes() + GuardState::THREAD_OFFSET;
    let mut at = tail.len().checked_sub(len)? & !0xf;
    while tail[at..].starts_with(code) {
        let owner = &tail[at + thread..at + thread + 8];
        if is_left(at, u64::from_ne_bytes(owner.try_into().ok()?)) {
            return Some(at);
        }
        at = at.checked_sub(len)? & !0xf;
    }
    let from = at.checked_sub(MARGIN)?;
    tail[from..at + len].iter().all(|&byte| byte == 0).then_some(at)
}

/// What a thread that was stopped with these registers and this mask goes back to without the kernel's help.
pub(crate) fn state(thread: u32, registers: &user_regs_struct, mask: u64) -> GuardState {
    let back = restart::without_kernel(*registers);
    GuardState {
        rflags: back.eflags,
        rsp: back.rsp,
        mask,
        rip: back.rip,
        general: [
            back.rax, back.rcx, back.rdx, back.rsi, back.rdi, back.r8, back.r9, back.r10, back.r11, back.r12,
            back.r13,
        ],
        thread: thread.into(),
    }
}

/// Whether a thread of process `pid` that is not stopped is certainly somewhere else.
fn has_left(pid: u32, thread: u64, is_there: impl Fn(u64) -> bool) -> bool {
    // Empty or refused once it has ended; "running" while that cannot be told; else its instruction's address comes last.
    match fs::read_to_string(format!("/proc/{pid}/task/{thread}/syscall")) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(text) => {
            let rip = text.split_ascii_whitespace().last().and_then(|word| word.strip_prefix("0x"));
            rip.and_then(|rip| u64::from_str_radix(rip, 16).ok()).is_some_and(|rip| !is_there(rip))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: fn(usize, u64) -> bool = |_, _| true;
    const SOMEBODY: fn(usize, u64) -> bool = |_, _| false;

    #[test]
    fn it_stands_at_the_end_of_zeros() {
        let first = room(&[0; TAIL], SOMEBODY).unwrap();
        assert!(first.is_multiple_of(16) && (TAIL - 15..=TAIL).contains(&(first + guard().len())));
        assert_eq!(room(&[0; 64], NOBODY), None);
        assert_eq!(room(&[0xcc; TAIL], NOBODY), None);
    }

    #[test]
    fn one_that_was_left_is_written_over_and_one_in_use_is_not() {
        let len = guard().len();
        let mut tail = vec![0; TAIL];
        let first = room(&tail, SOMEBODY).unwrap();
        tail[first..first + len].copy_from_slice(guard());
        tail[first + guard_code_bytes() + GuardState::THREAD_OFFSET] = 7;
        assert_eq!(room(&tail, |at, thread| (at, thread) == (first, 7)), Some(first));
        let second = room(&tail, SOMEBODY).unwrap();
        assert!(second + len <= first);
        tail[second - 1] = 1;
        assert_eq!(room(&tail, SOMEBODY), None, "something ends there");
        assert_eq!(room(&tail, NOBODY), Some(first));
    }
}
