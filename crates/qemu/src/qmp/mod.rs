//! QMP, the language of QEMU's monitor: lines of JSON over a stream. This client is tolerant: it takes the fields that it
//! knows and leaves the rest, so that older and newer QEMUs are understood. It believes no length and no order of what it reads.

mod client;
pub(crate) mod event;
mod message;

pub(crate) use client::Qmp;
