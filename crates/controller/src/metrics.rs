//! Prometheus metrics: gauges of this moment, taken from the ledger, and what was counted.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::counts::Counts;
use crate::ledger::State;
use crate::views;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBrick {
    brick: String,
}

/// The text for a scraper.
pub(crate) fn text(state: &State, counts: &Counts) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("rackmem_controller");
    let mut one = |name: &str, help: &str, value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(value.cast_signed());
        registry.register(name, help, gauge);
    };
    one("operations_running", "Operations that are running or wait", state.running as u64);
    one("operations_kept", "Operations that are remembered", state.operations.len() as u64);
    one("reservations", "Reservations that are not over", state.rack.reservations().count() as u64);
    one("machines", "Virtual machines over the racks", state.machines.all().count() as u64);
    one("rack_changes", "How often the rack changed", state.rack.generation().0);
    one("watts", "What bricks and switches that are on draw", state.rack.watts());
    let family = |select: fn(&rackmem_api::controller::BrickView) -> u64| {
        let family = Family::<OfBrick, Gauge>::default();
        for brick in state.rack.bricks() {
            let view = views::brick(brick);
            let value = select(&view);
            family.get_or_create(&OfBrick { brick: view.name }).set(value.cast_signed());
        }
        family
    };
    let capacity = family(|brick| brick.capacity);
    let used = family(|brick| brick.used);
    let reachable = family(|brick| u64::from(brick.reachable));
    registry.register("brick_capacity", "Bytes, cores or slots of a brick", capacity);
    registry.register("brick_used", "What is taken of that", used);
    registry.register("brick_reachable", "Whether it answered", reachable);
    counts.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}
