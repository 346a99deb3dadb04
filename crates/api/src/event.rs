//! What happened, as it is told to whoever listens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::operation::Operation;

/// Number of an event; rises by one from event to event and never falls, also over restarts.
pub type EventId = u64;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number; a reader that lost its connection sends the last one as `Last-Event-ID` and misses nothing.
    pub id: EventId,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// What happened, for example `operation.done`, `vm.failed` or `elastic.grow`.
    #[schema(example = "operation.done")]
    pub kind: String,
    /// What it happened to, for example the name of a virtual machine.
    pub target: String,
    /// What happened, as a sentence.
    pub detail: String,
    /// The operation as it is now, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub operation: Option<Operation>,
}

/// Kind of the event that stands for events which are no longer known: read everything again.
pub const MISSED: &str = "events.missed";
