//! Virtual machines over the racks, through the command line: on a real rack in namespaces with QEMU guests, which needs root,
//! iproute2 and QEMU; and golden command scripts over simulated agents, which needs nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

mod machines;
mod rack;
mod scripts;
