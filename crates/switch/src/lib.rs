//! Circuit switches (S1): which port is connected to which, changed as a whole or not at all.
//!
//! A [`SwitchDriver`] is one switch. Its [`TcSwitch`] form is the kernel's own cross-connect between the devices of a network
//! namespace; [`SimSwitch`] keeps circuits in memory, for simulated racks. [`open`] takes the address that a switch is registered
//! with. A switch remembers the highest generation that changed it and refuses older ones, whoever asks.
//!
//! This crate decides nothing about where a circuit should go, and never changes a port that it was not told of, but for
//! circuits that a crash left with one direction only: those are cleared by the next change.

mod change;
mod driver;
mod error;
pub mod iproute;
mod pair;
mod sim;
mod tc;

pub use change::Change;
pub use driver::{Observed, SwitchAddress, SwitchDriver, open};
pub use error::SwitchError;
pub use pair::Pair;
pub use sim::SimSwitch;
pub use tc::TcSwitch;
