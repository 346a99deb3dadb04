//! Simulated SDM agents: the agent's API over virtual machines that are only numbers.
//!
//! A [`SimAgent`] keeps the promises of [`rackmem_api::agent::AgentApi`] as the real agent does: memory is accounted for
//! against the brick, older generations are refused, work is done in steps that take time, can fail and can be cancelled,
//! and a restart loses nothing that was accepted. What it never does: start a process, open a file, or use memory in
//! proportion to what it simulates. Thousands of them run in one process behind one router ([`SimFleet`]).
//!
//! The brick's state is a pure state machine: time and randomness are handed to it. [`SimAgent`] gives it the time of
//! tokio, which tests may pause.

mod agent;
mod brick;
mod config;
mod console;
mod fleet;
mod metrics;
mod random;

pub use agent::{Kept, SimAgent};
pub use config::{Failures, Latencies, SimConfig, SimDomain};
pub use fleet::SimFleet;
