//! Why the probe cannot do something, in sentences: they travel to the host as they are.

use std::io;

use guest_probe::{Damage, ProbeError};
use rackmem_types::Bytes;

/// An order is not done, or the probe cannot work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Order(#[from] ProbeError),
    #[error("{0}")]
    Usage(&'static str),
    #[error("nothing is held: order `fill SEED BYTES` first")]
    NothingHeld,
    #[error("only {held} is held, {asked} cannot be given back")]
    LessHeld { held: Bytes, asked: Bytes },
    #[error("{0} is more than the probe can number: 16TiB")]
    TooMuch(Bytes),
    #[error("the guest's kernel gives no {bytes} more: {source}")]
    NoMemory { bytes: Bytes, source: io::Error },
    #[error("{first}; {pages} of {all} pages are wrong")]
    Damaged { first: Damage, pages: u64, all: u64 },
    #[error("the check in the background ended: {0}")]
    DamagedUnderWay(Damage),
    #[error("no check in the background was started: order `churn start` first")]
    NoChurn,
    #[error("no page is held: order `page` first")]
    NoPage,
    #[error("the guest's memory did not get there within {seconds} s: {what} is {now}, not {side} {wanted}")]
    WaitedInVain { seconds: u32, what: &'static str, now: Bytes, side: &'static str, wanted: Bytes },
    #[error("could not read {path}: {source}")]
    File { path: String, source: io::Error },
    #[error("{path} does not say {what}")]
    Unclear { path: String, what: String },
    #[error("neither a virtio port named {name} nor {serial} is there: add one to the machine")]
    NoLine { name: &'static str, serial: &'static str },
    #[error("the line to the host broke: {0}")]
    Line(io::Error),
    #[error("could not run {program}: {source}")]
    Program { program: &'static str, source: io::Error },
    #[error("{program} ended with {status}")]
    ProgramFailed { program: &'static str, status: std::process::ExitStatus },
}

impl Refusal {
    pub(crate) fn file(path: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.into(), source }
    }
}
