//! Replies: one JSON object a line. Pure.

use rackmem_types::Bytes;
use serde::{Deserialize, Serialize};

/// What the probe sends: `{"id":12,"answer":{"checked":{…}}}` or `{"id":12,"error":"a sentence"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The order's number; none at a person's order, and at the greeting that nobody asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// An answer, or a sentence that says why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Answer(Answer),
    /// It was not.
    Error(String),
}

/// What belongs to the orders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To `hello`, and unasked when the probe starts.
    Ready(Ready),
    /// To `info`.
    Info(Box<Info>),
    /// To `fill`, and to `grow`.
    Filled(Filled),
    /// To `check`.
    Checked(Checked),
    /// To `touch`.
    Touched(Touched),
    /// To `shrink` and `release`.
    Held(Held),
    /// To `wait`.
    Memory(Memory),
    /// To the orders of `churn`.
    Churned(Churned),
    /// To the orders of `page`.
    Page(OnePage),
    /// To `run`.
    Ran(Ran),
    /// To `page release` and `poweroff`.
    Done,
}

/// The probe is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Time since the guest's kernel started.
    pub uptime_ms: u64,
    /// How many probes there have been since then: more than one if the kernel killed it for want of memory.
    pub run: u32,
}

/// What the guest sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Release of the kernel.
    pub kernel: String,
    /// Time since it started.
    pub uptime_ms: u64,
    /// Processors that are on line.
    pub cpus: u32,
    /// Its memory.
    pub memory: Memory,
    /// What the probe holds of it.
    pub held: Bytes,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: u64,
    /// The units in which memory comes and goes.
    pub blocks: MemoryBlocks,
    /// NUMA nodes.
    pub nodes: Vec<Node>,
    /// Devices of the virtio bus.
    pub virtio: Vec<VirtioDevice>,
}

/// Sizes from the guest's `/proc/meminfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All that the kernel manages.
    pub total: Bytes,
    /// Without use.
    pub free: Bytes,
    /// What programs could still get without swapping, by the kernel's estimate.
    pub available: Bytes,
    /// After how long an awaited size was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_us: Option<u64>,
}

/// Memory blocks (`/sys/devices/system/memory`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryBlocks {
    /// Size of one.
    pub size: Bytes,
    /// How many are on line.
    pub online: u64,
    /// How many are there, but not in use.
    pub offline: u64,
}

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its number.
    pub node: u32,
    /// Its memory.
    pub total: Bytes,
    /// Of that without use.
    pub free: Bytes,
    /// Its processors.
    pub cpus: Vec<u32>,
    /// Distances to all nodes, itself included, in the order of their numbers. 10 is no distance.
    pub distances: Vec<u32>,
}

/// A device of the virtio bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioDevice {
    /// Its name there, for example `virtio0`.
    pub name: String,
    /// Its kind in the specification's words, for example `memory`.
    pub kind: String,
    /// The driver that works it, if one does.
    pub driver: Option<String>,
}

/// Memory was filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filled {
    /// All that is held now.
    pub held: Bytes,
    /// Time that it took.
    pub elapsed_us: u64,
}

/// Every word was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Pages that were looked at.
    pub pages: u64,
    /// Time that it took.
    pub elapsed_us: u64,
}

/// Pages were touched, and each word read was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// Words read.
    pub reads: u64,
    /// Pages written.
    pub writes: u64,
    /// Time that it took.
    pub elapsed_us: u64,
    /// Reads and writes in a second.
    pub per_second: u64,
    /// The longest single one.
    pub longest_us: u64,
}

/// What is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// So much.
    pub held: Bytes,
}

/// What the check in the background did so far. It ends at the first wrong word, and every order of `churn` then says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Churned {
    /// Whether it runs.
    pub running: bool,
    /// Pages whose words were all compared.
    pub checked: u64,
    /// Pages written anew.
    pub written: u64,
    /// Longest time that one page took: how long the guest stood still, as the guest sees it.
    pub longest_us: u64,
}

/// The one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnePage {
    /// Where the guest's kernel has it in guest-physical memory.
    pub guest_physical_address: u64,
    /// Its first word, if it was read or written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
}

/// A command of the guest's shell came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// Its exit status; none if a signal ended it.
    pub status: Option<i32>,
    /// The end of what it wrote to its standard output.
    pub output: String,
    /// The end of what it wrote to its standard error.
    pub errors: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reply: &Reply, text: &str) {
        assert_eq!(serde_json::to_string(reply).unwrap(), text);
        assert_eq!(serde_json::from_str::<Reply>(text).unwrap(), *reply);
    }

    #[test]
    fn replies_are_one_line_of_json() {
        let answer = |id, answer| Reply { id, outcome: Outcome::Answer(answer) };
        check(
            &answer(None, Answer::Ready(Ready { uptime_ms: 2310, run: 1 })),
            r#"{"answer":{"ready":{"uptime_ms":2310,"run":1}}}"#,
        );
        check(
            &answer(Some(3), Answer::Held(Held { held: Bytes(4096) })),
            r#"{"id":3,"answer":{"held":{"held":4096}}}"#,
        );
        check(
            &answer(Some(4), Answer::Page(OnePage { guest_physical_address: 8192, value: None })),
            r#"{"id":4,"answer":{"page":{"guest_physical_address":8192}}}"#,
        );
        check(&answer(Some(5), Answer::Done), r#"{"id":5,"answer":"done"}"#);
        let error = Reply { id: Some(6), outcome: Outcome::Error("Nothing is held.".to_owned()) };
        check(&error, r#"{"id":6,"error":"Nothing is held."}"#);
    }
}
