//! Other processes' memory and threads: what `rustix` and `nix` do not wrap.

use std::ffi::c_void;
use std::io;

use rackmem_types::PageData;

/// Copies whole pages from consecutive addresses of process `pid`, starting at `address`. Returns how many came.
///
/// A page that is missing there and watched by a userfaultfd is faulted in first. Errors: `ESRCH`, `EPERM`, `EFAULT`.
pub fn read_pages(pid: u32, address: u64, pages: &mut [PageData]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: pages.as_mut_ptr().cast(), iov_len: size_of_val(pages) };
    let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: size_of_val(pages) };
    // SAFETY: the local vector covers exactly `pages`; the remote one is checked by the kernel in the other process.
    let bytes =
        unsafe { libc::process_vm_readv(pid as libc::pid_t, &raw const local, 1, &raw const remote, 1, 0) };
    if bytes < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes as usize / size_of::<PageData>()) }
}

/// Signal mask of a thread that the caller has stopped by ptrace (`PTRACE_GETSIGMASK`).
pub fn signal_mask(thread: i32) -> io::Result<u64> {
    let mut mask = 0u64;
    // SAFETY: the request writes the eight bytes that `addr` announces into `mask`, which outlives the call.
    let result = unsafe { libc::ptrace(libc::PTRACE_GETSIGMASK, thread, size_of::<u64>(), &raw mut mask) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(mask) }
}

/// Sets the signal mask of a thread that the caller has stopped by ptrace (`PTRACE_SETSIGMASK`).
pub fn set_signal_mask(thread: i32, mask: u64) -> io::Result<()> {
    // SAFETY: the request reads the eight bytes that `addr` announces from `mask`, which outlives the call.
    let result = unsafe { libc::ptrace(libc::PTRACE_SETSIGMASK, thread, size_of::<u64>(), &raw const mask) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a thread go on that the caller has stopped by ptrace, with `signal` delivered to it unless that is 0
/// (`PTRACE_CONT`). Any signal, real-time ones as well.
pub fn resume(thread: i32, signal: i32) -> io::Result<()> {
    // SAFETY: the request takes integers; the address is not used.
    let result = unsafe { libc::ptrace(libc::PTRACE_CONT, thread, 0usize, signal as usize) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Instructions of a filter that the kernel accepts at most (`BPF_MAXINSNS`).
const FILTER_LEN_MAX: usize = 4096;

/// The system call filter number `index` of a thread that the caller has stopped by ptrace, the newest is 0
/// (`PTRACE_SECCOMP_GET_FILTER`). Each instruction is a `struct sock_filter`.
///
/// Errors: `ENOENT` if there are no more, `EACCES` without `CAP_SYS_ADMIN`, `EIO` if the kernel lacks
/// `CONFIG_CHECKPOINT_RESTORE`.
pub fn seccomp_filter(thread: i32, index: usize) -> io::Result<Vec<[u8; 8]>> {
    /// `linux/ptrace.h`.
    const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;
    let mut filter = vec![[0; 8]; FILTER_LEN_MAX];
    // SAFETY: the request writes at most as many instructions of eight bytes as the kernel accepts in a filter, for which
    // `filter` has room, and it outlives the call.
    let len = unsafe { libc::ptrace(PTRACE_SECCOMP_GET_FILTER, thread, index, filter.as_mut_ptr()) };
    if len < 0 {
        return Err(io::Error::last_os_error());
    }
    filter.truncate(len as usize);
    Ok(filter)
}

/// Whether two processes run in the same address space (`kcmp(2)`).
///
/// Errors: `ESRCH`, `EPERM`, `ENOSYS` if the kernel lacks `CONFIG_KCMP`.
pub fn share_memory(one: u32, other: u32) -> io::Result<bool> {
    /// `enum kcmp_type` of `linux/kcmp.h`.
    const KCMP_VM: u64 = 1;
    // SAFETY: the call takes five integers.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0u64, 0u64) };
    if order < 0 { Err(io::Error::last_os_error()) } else { Ok(order == 0) }
}

/// Sends `signal` to one thread of a process.
pub fn signal_thread(pid: u32, thread: u32, signal: i32) -> io::Result<()> {
    // SAFETY: the call takes three integers.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, pid, thread, signal) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Forks a process that has the caller's table of descriptors itself, not a copy of it (`clone(2)` with `CLONE_FILES`): what one of
/// them opens or closes the other opens or closes too, and the table is there until both have ended. Gives the child's id,
/// and in the child `None`.
///
/// Errors: `EBUSY` if the caller has more threads than one, because the child would have their locks and not them.
pub fn fork_sharing_descriptors() -> io::Result<Option<u32>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let flags = libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: without `CLONE_VM` and without a stack this is `fork`: the child goes on here with a memory of its own, in which
    // no lock is held, since there was no other thread that could hold one.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) };
    match child {
        ..0 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid as u32)),
    }
}

/// Ends the process, and runs nothing of what was registered to be run then: for a forked one, to which it does not belong.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: the call takes an integer and does not return.
    unsafe { libc::_exit(code) }
}
