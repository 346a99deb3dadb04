//! How a running pager is spoken to: one Unix socket per target, JSON lines, and the types in them.
//!
//! The pager implements [`Handler`]; the command line uses the client. This crate decides nothing:
//! it carries questions and answers.
//!
//! A request is one line of JSON, `{"ask":"stats"}`; the answer is one line, `{"ok":…}` or `{"error":"a sentence"}`. A
//! watch gives such lines until it ends. The sockets are in [`directory()`], named after the target's process id.

mod client;
mod directory;
mod error;
mod lend;
mod line;
mod server;

pub use client::{Accesses, Client, WatchEnd};
pub use directory::{directory, prepare, targets, targets_in};
pub use error::ControlError;
pub use lend::{LendReport, Lending, LentSegment};
pub use line::{ANSWER_BYTES_MAX, REQUEST_BYTES_MAX};
pub use server::Server;

use rackmem_types::{Bytes, ServerAddress};
use serde::{Deserialize, Serialize};

/// What a pager knows of its target: counters since the attach, and gauges of now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TargetStats {
    /// Process id of the target (of the first process, where it forked).
    pub pid: u32,
    /// Process id of the pager.
    pub pager_pid: u32,
    /// Name of the program.
    pub command: String,
    /// Processes whose memory is managed: the target and its descendants.
    pub processes: u32,
    /// Time since the attach, in microseconds; the clock of the counters below.
    pub uptime_us: u64,
    /// How long the target stood still for the attach, in microseconds.
    pub attach_pause_us: u64,
    /// Memory with content under management: local + far.
    pub managed: Bytes,
    /// Managed memory that is in this machine's RAM.
    pub local: Bytes,
    /// Managed memory that is only on memory servers.
    pub far: Bytes,
    /// The local limit.
    pub limit: Bytes,
    /// Page faults answered.
    pub faults: u64,
    /// Of these, faults that waited for a memory server.
    pub far_faults: u64,
    /// Latency of far faults over the last ten seconds, from the event to the wake-up.
    pub fault_latency: Latency,
    /// Sum over all threads of the time spent waiting for pages, in microseconds.
    pub stall_us: u64,
    /// Pages read from memory servers because a fault asked.
    pub pages_fetched: u64,
    /// Pages read from memory servers ahead of need.
    pub pages_prefetched: u64,
    /// Prefetched pages that turned out to be needed.
    pub prefetch_hits: u64,
    /// Pages that left the target.
    pub pages_evicted: u64,
    /// Pages that left and were not sent because the memory server has them already.
    pub pages_unchanged: u64,
    /// Pages that left and were not sent because they were all zero.
    pub pages_zero: u64,
    /// Pages that came back from the standby list without a memory server.
    pub pages_reclaimed: u64,
    /// Pages lost with a memory server; touching one gives SIGBUS.
    pub pages_lost: u64,
    /// The memory servers in use.
    pub servers: Vec<ServerStats>,
    /// What the user should know, in sentences, newest last (a lost server, far memory full, …).
    pub warnings: Vec<String>,
}

/// Latency in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Worst.
    pub max_us: f64,
}

/// One memory server as the pager sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerStats {
    /// Where it listens.
    pub address: ServerAddress,
    /// Memory reserved there.
    pub reserved: Bytes,
    /// Memory in use there.
    pub used: Bytes,
    /// `up`, `reconnecting` or `lost`.
    pub state: String,
}

/// One access to a watched page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Time since the watch began, in microseconds.
    pub at_us: u64,
    /// Thread that touched the page.
    pub thread: u32,
    /// The address it touched.
    pub address: u64,
    /// Whether it wrote.
    pub write: bool,
}

/// What a detach did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachReport {
    /// Pages that had to be brought home.
    pub pages_fetched: u64,
    /// Time it took, in microseconds.
    pub took_us: u64,
}

/// What a pager does when it is asked. Errors are sentences for the user.
pub trait Handler: Send + Sync {
    /// The counters and gauges of now.
    fn stats(&self) -> TargetStats;
    /// Changes the local limit of the live target; answers when the new limit is in force.
    fn limit_set(&self, limit: Bytes) -> Result<(), String>;
    /// Brings every far page home and lets the target go; answers when no trace is left. The pager
    /// ends by itself afterwards.
    fn detach(&self) -> Result<DetachReport, String>;
    /// Reports each access to the page at `address` until `report` answers `false`, which it also
    /// does, when asked with `None` from time to time, once the asker has gone.
    fn watch(&self, address: u64, report: &mut dyn FnMut(Option<Access>) -> bool) -> Result<(), String>;
    /// Lets the live target use exactly this far memory from now on.
    fn lend(&self, lending: Lending) -> Result<LendReport, String>;
}
