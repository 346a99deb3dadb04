//! Virtual machines under a real agent with real QEMU, in translation: everything here needs root, QEMU and the test guest
//! (`cargo xtask guest`), and says so where one is missing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod brick;
mod busy;
mod conformance;
mod domains;
mod elastic;
mod foreign;
mod given;
mod libvirtd;
mod life;
mod memory;
mod refusals;
mod survival;
mod terminal;
