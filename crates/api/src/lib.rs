//! What the parts of the control plane say to each other: types, traits, routers and clients.
//!
//! The outer modules are for every API of rackmem: problem documents, durable operations, generations, idempotency
//! keys, authentication, event streams, and serving all that on TCP, TLS and Unix sockets. [`agent`] is the API of the
//! SDM agent (interface S7 of D4.1).
//!
//! This crate keeps no state and decides nothing: who implements a trait does. Everything that judges (a generation, a
//! key, a token, an address) is a pure function of what it is given.

pub mod agent;
mod answer;
pub mod auth;
pub mod change;
mod class;
pub mod client;
#[cfg(feature = "conformance")]
pub mod conformance;
mod console;
pub mod controller;
mod error;
pub mod event;
pub mod events;
pub mod extract;
pub mod generation;
pub mod idempotency;
mod json;
mod name;
pub mod operation;
pub mod problem;
pub mod schema;
pub mod serve;

pub use answer::Accepted;
pub use change::Change;
pub use class::{LatencyClass, ParseClassError};
pub use error::ApiError;
pub use event::{Event, EventId};
pub use generation::Generation;
pub use idempotency::IdempotencyKey;
pub use name::{AttachmentId, GroupName, NameError, VmName};
pub use operation::{Operation, OperationId, OperationState};
pub use problem::Problem;
