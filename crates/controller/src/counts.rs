//! What this process has counted: operations that ended, what was refused, told and tried again. A controller that is started anew
//! begins at 0, so nothing is counted twice. Labels are words of the program, never what somebody wrote.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rackmem_api::problem::ProblemType;

/// From what is done at once to a machine that waits for its guest, in seconds.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    kind: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    reason: &'static str,
}

/// The counts of one controller.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    operations: Family<Ended, Counter>,
    durations: Family<OfKind, Histogram, fn() -> Histogram>,
    refused: Family<Because, Counter>,
    events: Family<OfKind, Counter>,
    steps_retried: Counter,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            operations: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            refused: Family::default(),
            events: Family::default(),
            steps_retried: Counter::default(),
        }
    }
}

impl Counts {
    /// An operation of that kind has ended, so long after it was accepted.
    pub(crate) fn ended(&self, kind: &str, state: &'static str, after: Duration) {
        self.operations.get_or_create(&Ended { kind: kind.to_owned(), state }).inc();
        self.durations.get_or_create(&OfKind { kind: kind.to_owned() }).observe(after.as_secs_f64());
    }

    /// A change was refused, and no operation made of it.
    pub(crate) fn refused(&self, reason: ProblemType) {
        let uri = reason.uri();
        let reason = uri.strip_prefix("/problems/").unwrap_or(uri);
        self.refused.get_or_create(&Because { reason }).inc();
    }

    /// An event of that kind was told.
    pub(crate) fn told(&self, kind: &str) {
        self.events.get_or_create(&OfKind { kind: kind.to_owned() }).inc();
    }

    /// A step is tried again.
    pub(crate) fn step_retried(&self) {
        self.steps_retried.inc();
    }

    /// Has them shown to a scraper.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("operations", "Operations that ended, by kind and result", self.operations.clone());
        let help = "From the acceptance of an operation to its end";
        registry.register("operation_duration_seconds", help, self.durations.clone());
        let help = "Changes that were refused before they became operations, by the type of problem";
        registry.register("requests_refused", help, self.refused.clone());
        registry.register("events", "Events that were told, by kind", self.events.clone());
        registry.register("steps_retried", "Steps that were tried again", self.steps_retried.clone());
    }
}
