//! The agent's API over simulated virtual machines.
