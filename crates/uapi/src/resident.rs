//! The resident thread's code, and the memory that it shares with the pager.
//!
//! Behind it stands the **guard**: what a stopped thread runs for one system call at a time. When the call is over the
//! thread is stopped again and its registers are put back. If nobody is there to do that any more, because the tracer was
//! killed, it goes on behind the call and puts them back itself, from the [`GuardState`] that was left for it.
//!
//! The code is position independent, uses no stack and knows one thing: run the system calls of a batch and say when it
//! is done. All policy stays in the pager. The ring (one shared mapping, [`RING_BYTES`] long):
//!
//! | offset | what |
//! |---|---|
//! | 0 | `submitted`: number of the newest batch, a futex that the resident thread sleeps on |
//! | 4 | `completed`: number of the newest batch that is done, a futex that the pager sleeps on |
//! | 8 | `gate`: 0 open, 1 a gated call is running, 2 closed by the pager |
//! | 12 | `cancel`: not 0 = gated calls are not run, they give `-ECANCELED` |
//! | 16 | `count`: calls in the batch |
//! | 64 | calls of 64 bytes: number (bit 32 = gated), six arguments, result |
//! | [`SCRATCH_OFFSET`] | scratch for the structures that calls point to |

use std::arch::global_asm;

/// Length of the ring in bytes.
pub const RING_BYTES: usize = 1 << 16;
/// Offset of the futex word with the number of the newest batch.
pub const SUBMITTED_OFFSET: usize = 0;
/// Offset of the futex word with the number of the newest completed batch.
pub const COMPLETED_OFFSET: usize = 4;
/// Offset of the gate.
pub const GATE_OFFSET: usize = 8;
/// Offset of the cancel word.
pub const CANCEL_OFFSET: usize = 12;
/// Offset of the number of calls in the batch.
pub const COUNT_OFFSET: usize = 16;
/// Offset of the first call.
pub const CALLS_OFFSET: usize = 64;
/// Bytes of one call.
pub const CALL_BYTES: usize = 64;
/// Calls in a batch at most: what fits in front of the scratch area.
pub const CALLS_MAX: usize = (SCRATCH_OFFSET - CALLS_OFFSET) / CALL_BYTES;
/// Offset of the scratch area, which reaches to the end of the ring.
pub const SCRATCH_OFFSET: usize = 1 << 15;
/// Set in a call's number: the call only runs while the gate is open.
pub const GATED: u64 = 1 << 32;

// The resident thread is born at the first instruction, as the return path of `clone`: there r12 holds the ring's address in
// the target and r13 the number of the last completed batch (0). Its parent is stopped there; left alone it goes to the guard.
global_asm!(
    ".pushsection .rodata.rackmem_resident, \"a\", @progbits",
    ".globl rackmem_resident_start",
    ".globl rackmem_resident_end",
    ".globl rackmem_guard_start",
    ".globl rackmem_guard_state",
    "rackmem_resident_start:",
    "    syscall",
    "    test eax, eax",
    "    jnz 20f",
    "2:  mov eax, [r12]",
    "    cmp eax, r13d",
    "    jne 3f",
    "    mov eax, 202", // futex(&submitted, FUTEX_WAIT, r13, NULL)
    "    mov rdi, r12",
    "    xor esi, esi",
    "    mov edx, r13d",
    "    xor r10d, r10d",
    "    syscall",
    "    jmp 2b",
    "3:  mov r13d, eax",
    "    xor ebx, ebx",
    "    lea r14, [r12 + 64]",
    "4:  cmp ebx, [r12 + 16]",
    "    jae 9f",
    "    cmp ebx, 511", // CALLS_MAX: the count is in memory that the program could scribble on
    "    jae 9f",
    "    mov r15, [r14]",
    "    bt r15, 32",
    "    jnc 6f",
    "    mov ebp, 1000", // spins before it yields: about as long as one read of the userfaultfd
    "5:  xor eax, eax",
    "    mov ecx, 1",
    "    lock cmpxchg [r12 + 8], ecx",
    "    je 55f",
    "    pause",
    "    dec ebp",
    "    jnz 5b",
    "    mov eax, 24", // sched_yield()
    "    syscall",
    "    mov ebp, 1000",
    "    jmp 5b",
    "55: cmp dword ptr [r12 + 12], 0",
    "    je 6f",
    "    mov rax, -125", // -ECANCELED
    "    jmp 7f",
    "6:  mov eax, r15d",
    "    mov rdi, [r14 + 8]",
    "    mov rsi, [r14 + 16]",
    "    mov rdx, [r14 + 24]",
    "    mov r10, [r14 + 32]",
    "    mov r8, [r14 + 40]",
    "    mov r9, [r14 + 48]",
    "    syscall",
    "7:  mov [r14 + 56], rax",
    "    bt r15, 32",
    "    jnc 8f",
    "    mov dword ptr [r12 + 8], 0",
    "8:  add r14, 64",
    "    inc ebx",
    "    jmp 4b",
    "9:  mov [r12 + 4], r13d",
    "    mov eax, 202", // futex(&completed, FUTEX_WAKE, 1)
    "    lea rdi, [r12 + 4]",
    "    mov esi, 1",
    "    mov edx, 1",
    "    syscall",
    "    jmp 2b",
    "    .balign 16",
    "rackmem_guard_start:",
    "    syscall",
    // Nothing below changes the flags once they are back. While the stack pointer is not its own no signal can arrive.
    "20: lea rsp, [rip + 30f]",
    "    popfq",
    "    mov rsp, [rip + 30f + 8]",
    "    mov eax, 14", // rt_sigprocmask(SIG_SETMASK, &mask, NULL, 8)
    "    mov edi, 2",
    "    lea rsi, [rip + 30f + 16]",
    "    mov edx, 0",
    "    mov r10d, 8",
    "    syscall",
    "    mov rax, [rip + 30f + 32]",
    "    mov rcx, [rip + 30f + 40]",
    "    mov rdx, [rip + 30f + 48]",
    "    mov rsi, [rip + 30f + 56]",
    "    mov rdi, [rip + 30f + 64]",
    "    mov r8, [rip + 30f + 72]",
    "    mov r9, [rip + 30f + 80]",
    "    mov r10, [rip + 30f + 88]",
    "    mov r11, [rip + 30f + 96]",
    "    mov r12, [rip + 30f + 104]",
    "    mov r13, [rip + 30f + 112]",
    "    jmp [rip + 30f + 24]",
    "    .balign 8",
    "rackmem_guard_state:",
    "30: .zero 128",
    "rackmem_resident_end:",
    ".popsection",
);

const _: () = assert!(CALLS_MAX == 511);

unsafe extern "C" {
    static rackmem_resident_start: u8;
    static rackmem_guard_start: u8;
    static rackmem_guard_state: u8;
    static rackmem_resident_end: u8;
}

/// Registers and signal mask that the guard puts back, as it reads them: those that a call for us changes. The others are not
/// touched, and floating point is none of the kernel's business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GuardState {
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Blocked signals.
    pub mask: u64,
    /// Where it goes on.
    pub rip: u64,
    /// rax, rcx, rdx, rsi, rdi, r8 to r13.
    pub general: [u64; 11],
    /// Whose registers these are: the thread's id as its tracer sees it. The guard itself does not need it.
    pub thread: u64,
}

impl GuardState {
    /// Bytes of a state in memory.
    pub const BYTES: usize = 128;

    /// Where in those bytes the thread stands.
    pub const THREAD_OFFSET: usize = 120;

    /// As it lies in memory.
    pub fn bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let head = [self.rflags, self.rsp, self.mask, self.rip];
        let words = head.iter().chain(&self.general).chain([&self.thread]);
        for (word, to) in words.zip(bytes.chunks_exact_mut(8)) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

const _: () = assert!(size_of::<GuardState>() == GuardState::BYTES);

/// The resident thread's machine code, with a guard at its end.
pub fn code() -> &'static [u8] {
    between(&raw const rackmem_resident_start, &raw const rackmem_resident_end)
}

/// The guard alone, with room for its state at the end.
pub fn guard() -> &'static [u8] {
    between(&raw const rackmem_guard_start, &raw const rackmem_resident_end)
}

/// Bytes of the guard before its state.
pub fn guard_code_bytes() -> usize {
    between(&raw const rackmem_guard_start, &raw const rackmem_guard_state).len()
}

/// The bytes between two symbols of the code above.
fn between(start: *const u8, end: *const u8) -> &'static [u8] {
    // SAFETY: only called with symbols that bracket read-only bytes of our own binary, defined above in this order.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}
