//! Real QEMU processes with the test guest in them, by translation (`qemu_…`), and domains of a real libvirtd (`libvirtd_…`, as
//! root). The guest is built by `cargo xtask guest`.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in what it shares with others")]

#[cfg(feature = "libvirt")]
mod domains;
mod guest;
mod life;
mod memory;
