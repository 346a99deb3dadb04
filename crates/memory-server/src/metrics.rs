//! What the server counts. Handles are made once; counting is an addition to an atomic word for each frame or batch,
//! never for each page.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use rackmem_types::PAGE_SIZE;
use rackmem_wire::ErrorCode;

use crate::session::Store;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

/// Counters since the start, and the connections of now.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) pages_read: Counter,
    pub(crate) pages_written: Counter,
    pub(crate) pages_discarded: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) latency: Arc<Latency>,
    errors: Family<CodeLabel, Counter>,
}

impl Metrics {
    /// Counts an ERROR frame.
    pub(crate) fn error(&self, code: ErrorCode) {
        self.errors.get_or_create(&CodeLabel { code: code.name() }).inc();
    }

    /// ERROR frames of all codes.
    pub(crate) fn errors_total(&self) -> u64 {
        let labels = ErrorCode::ALL.into_iter().map(|code| CodeLabel { code: code.name() });
        labels.filter_map(|label| self.errors.get(&label).map(|counter| counter.get())).sum()
    }
}

/// All metrics of a server, as Prometheus wants to see them.
pub(crate) fn registry(store: &Arc<Store>) -> Registry {
    let metrics = &store.metrics;
    let mut registry = Registry::with_prefix("rackmem_memory_server");
    registry.register("connections", "Connections of now", metrics.connections.clone());
    let counters = [
        (
            "connections_refused",
            "Connections closed at once because of a limit",
            &metrics.connections_refused,
        ),
        ("pages_read", "Pages asked for by READ", &metrics.pages_read),
        ("pages_written", "Pages sent by WRITE", &metrics.pages_written),
        ("pages_discarded", "Pages forgotten by DISCARD", &metrics.pages_discarded),
        ("received_bytes", "Bytes received, without TLS", &metrics.bytes_received),
        ("sent_bytes", "Bytes sent, without TLS", &metrics.bytes_sent),
    ];
    for (name, help, counter) in counters {
        registry.register(name, help, counter.clone());
    }
    registry.register("errors", "ERROR frames sent, by code", metrics.errors.clone());
    registry.register_collector(Box::new(PoolCollector(Arc::clone(store))));
    registry
}

/// The pool's gauges, taken when they are asked for.
#[derive(Debug)]
struct PoolCollector(Arc<Store>);

impl Collector for PoolCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = self.0.status();
        let bytes = |pages: u64| pages * PAGE_SIZE as u64;
        for (name, help, value) in [
            ("pool_bytes", "Size of the pool", bytes(status.pages_total)),
            ("pool_reserved_bytes", "Memory that segments have reserved", bytes(status.pages_reserved)),
            ("pool_filled_bytes", "Memory of pages with content", bytes(status.pages_filled)),
            ("segments", "Segments of now", status.segments),
            ("uptime_seconds", "Time since the start", status.uptime_ms / 1000),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let help = "Time from the arrival of a batch of requests to its answers being handed to the kernel";
        let mut metric = encoder.encode_descriptor("request_seconds", help, None, MetricType::Histogram)?;
        let (sum, buckets) = self.0.metrics.latency.read();
        let count = buckets.iter().map(|(_, count)| count).sum();
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

/// Upper bounds of the latency histogram, in microseconds: a page takes about two, a full batch about a hundred.
const BOUNDS_US: [u64; 12] = [2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 50_000, 1_000_000];

/// A histogram that takes many equal observations at once without a lock.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_ns: AtomicU64,
}

impl Latency {
    /// `requests` requests took `time` each.
    pub(crate) fn observe(&self, time: Duration, requests: u64) {
        let bucket = BOUNDS_US.partition_point(|bound| u128::from(*bound) < time.as_micros());
        self.buckets[bucket].fetch_add(requests, Ordering::Relaxed);
        self.sum_ns.fetch_add(time.as_nanos() as u64 * requests, Ordering::Relaxed);
    }

    /// The sum in seconds, and each bucket's upper bound in seconds and count.
    fn read(&self) -> (f64, Vec<(f64, u64)>) {
        let bounds = BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        (self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9, bounds.zip(counts).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_the_bucket_that_holds_them() {
        let latency = Latency::default();
        latency.observe(Duration::from_micros(2), 3);
        latency.observe(Duration::from_secs(100), 1);
        let (sum, buckets) = latency.read();
        assert_eq!((buckets[0], buckets[BOUNDS_US.len()]), ((2e-6, 3), (f64::INFINITY, 1)));
        assert!((sum - 100.000_006).abs() < 1e-9);
    }
}
