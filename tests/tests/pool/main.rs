//! The controller over a real rack, and by itself. The rack needs root, iproute2 and gcc.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

mod alone;
mod killed;
mod pages;
mod rack;
