//! The SDM controller: knows every brick and every link of the racks, takes registrations (S9) and reservations (S10), decides,
//! and has agents, memory servers and switches carry out what it decided.
//!
//! - [`Controller`] is the API ([`rackmem_api::controller::ControllerApi`]) over the rest.
//! - The *ledger* is the one place where anything is decided: the rack and all operations, in memory, behind one lock. What
//!   changes there is written down in the order in which it changed, many changes to one transaction, and nobody is answered
//!   and no step is begun before that is on the disk.
//! - The *dispatcher* hands running operations to workers; a worker carries a plan out step by step, each recorded before it is
//!   begun, and undoes it in reverse when one fails. After a crash a worker goes on where its predecessor was.
//! - The *compute service* keeps which machine runs where; agents run them.
//! - [`Hands`] are what the steps are done with.
//! - The *watch* asks bricks and switches how they are, begins repairs of what they lost, and lets what was reserved and never
//!   applied expire.
//!
//! It moves no page and starts no process; when it is gone, nothing that runs notices.

mod compute;
mod config;
mod controller;
mod counts;
mod deed;
mod dispatch;
mod doing;
mod error;
mod hands;
mod job;
mod ledger;
mod metrics;
mod news;
mod order;
mod overtaken;
mod planning;
mod queue;
mod reality;
mod repair;
mod store;
mod tend;
mod views;
mod watch;
mod worker;

pub use compute::{Call, Errand, Images, ParseImagesError, Told};
pub use config::ControllerConfig;
pub use controller::Controller;
pub use deed::{Deed, Placed};
pub use error::ControllerError;
pub use hands::{Hands, RackHands, Seen, TableEntry, Target, attachment_of, segment_of};
pub use order::Order;
