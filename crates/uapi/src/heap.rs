//! How the C library's allocator keeps memory.

/// Free memory at the heap's end beyond which it goes back to the kernel, bytes: little beside a large server, and seldom reached by
/// what a request needs. glibc raises its own value, 128 KiB, for as long as nobody sets one.
#[cfg(target_env = "gnu")]
const TRIM_BYTES: libc::c_int = 8 << 20;

/// Has all threads share one heap from here on, and gives what is free at its end back at once.
///
/// By default glibc's `malloc` gives threads heaps of their own, and each keeps what was freed in it: a server whose threads
/// take turns at one large state then holds that memory several times (`mallopt(3)`, `M_ARENA_MAX` and `M_TRIM_THRESHOLD`).
/// Threads wait for each other's allocations in return. Without effect with another C library.
pub fn share_one() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_ARENA_MAX, 1), (libc::M_TRIM_THRESHOLD, TRIM_BYTES)] {
        // SAFETY: two integers; they say how later allocations are made and concern none that was.
        unsafe { libc::mallopt(parameter, value) };
    }
}
