//! Virtual machines over the rack (D4.1 §2.2): which machine runs where with how much of what.
//!
//! A machine owns one reservation: cores and local memory of a compute brick, and far memory. What changes a machine is an
//! operation like any other; beside the steps of a plan it has [`Errand`]s, which the brick's agent is asked to do. Where a plan
//! adds, they come after its steps; where it takes away, before. What is here decides and writes down; agents run machines.

mod book;
mod course;
mod decide;
mod errand;
mod guests;
mod images;
mod service;
pub(crate) mod watch;

pub(crate) use book::{Machine, Machines};
pub(crate) use course::{Course, Leg};
pub(crate) use decide::{MachineWork, course};
pub use errand::{Call, Errand, Told};
pub use images::{Images, ParseImagesError};
