//! What the agent keeps of a VM, and where its files are.

mod dimms;
mod files;
mod machine;
mod record;

pub(crate) use dimms::Dimms;
pub(crate) use files::VmFiles;
pub(crate) use machine::machine_config;
pub(crate) use record::{Domain, VmRecord, Wanted};
