//! The SDM agent: starts and looks after a brick's virtual machines, gives them far memory through the pager, and changes
//! their memory while they run.
//!
//! It holds nothing that cannot be found again: machines and pagers are processes of their own that live on when it dies.
//! What it is told it writes down before it does it ([`operation`], in the store), so the next agent goes on where this
//! one ended. Planning ([`resize`]) and deciding ([`elastic`]) are pure; the steps of operations do the work.
//!
//! It never moves a page: pagers do. It never decides where far memory comes from: its user or the controller does, which it asks for
//! more when a machine grows beyond what it has ([`Lender`]).

mod config;
pub mod elastic;
mod engine;
mod foreign;
mod ground;
mod host;
mod hypervisor;
mod keeper;
mod lender;
mod libvirt;
mod machines;
mod metrics;
mod mortality;
pub mod operation;
mod pagers;
mod problem;
pub mod resize;
mod seen;
mod servers;
mod service;
mod start;
mod step;
mod store;
mod vm;

pub use config::AgentConfig;
pub use lender::Lender;
pub use libvirt::URI as LIBVIRT;
pub use rackmem_qemu::AcceleratorKind;
pub use service::Agent;
pub use start::start;
pub use store::StoreError;
