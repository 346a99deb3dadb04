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

/// Sends `signal` to one thread of a process.
pub fn signal_thread(pid: u32, thread: u32, signal: i32) -> io::Result<()> {
    // SAFETY: the call takes three integers.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, pid, thread, signal) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
