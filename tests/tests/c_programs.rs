//! Statically linked C programs that know what each page of theirs has to hold. Needs root and gcc.

use std::ffi::OsString;

use rackmem_e2e::{Case, at_every_limit, c_program};

fn case(name: &str, memory_mib: u64) -> Case {
    Case::new(memory_mib, [c_program(name), OsString::from(memory_mib.to_string())])
}

at_every_limit! {
    /// Sequential, random and backward reads, overwrites, heap and mapping, pages of zeros.
    fill_check => case("fill_check", 160);
    /// Twelve threads on shared and private pages, and two hundred short-lived ones.
    threads => Case::new(128, [c_program("threads"), "128".into(), "1".into(), "8".into()]);
    /// Children and grandchildren see memory as of their fork.
    fork_tree => case("fork_tree", 48).in_several_processes();
    /// `mmap`, `munmap`, `mremap`, `MADV_DONTNEED`, `MADV_FREE` by four threads at once.
    churn => case("churn", 96).in_several_processes();
    /// `pread` and `pwrite` to and from far memory.
    system_calls => case("system_calls", 96);
    /// `vfork`, `posix_spawn`, `fork` with `exec`, from a large program.
    spawn => case("spawn", 96);
}
