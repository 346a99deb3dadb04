//! The SDM agent.

pub mod elastic;
pub mod operation;
pub mod resize;
