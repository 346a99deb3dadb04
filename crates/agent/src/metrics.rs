//! Prometheus metrics: gauges of this moment, taken from the same views that the API shows. Nothing is counted on the way,
//! so an agent that was restarted shows what its predecessor showed.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rackmem_api::agent::{HostView, PagerState, VmState, VmView};
use rackmem_types::Bytes;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfVm {
    vm: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: String,
}

/// The text for a scraper.
pub(crate) fn text(host: &HostView, vms: &[VmView]) -> Result<String, std::fmt::Error> {
    let mut page = Page { registry: Registry::with_prefix("rackmem_agent") };
    page.host(host);
    page.states(vms);
    let bytes = |bytes: Bytes| i64::try_from(bytes.0).unwrap_or(i64::MAX);
    page.of_vms("vm_memory_bytes", "Memory that the guest has", vms, |vm| bytes(vm.memory.size));
    page.of_vms("vm_memory_target_bytes", "Memory that was asked for", vms, |vm| bytes(vm.memory.target));
    page.of_vms("vm_memory_max_bytes", "Memory that it can have", vms, |vm| bytes(vm.memory.max));
    page.of_vms("vm_local_bytes", "Resident in this brick's RAM", vms, |vm| bytes(vm.memory.local));
    page.of_vms("vm_far_bytes", "Only on memory servers", vms, |vm| bytes(vm.memory.far));
    page.of_vms("vm_local_limit_bytes", "Local limit", vms, |vm| vm.memory.local_limit.map_or(-1, bytes));
    page.of_vms("vm_guest_available_bytes", "Available to the guest's programs", vms, |vm| {
        vm.memory.guest.map_or(-1, |guest| bytes(guest.available))
    });
    page.of_vms("vm_pager_up", "Whether its pager serves", vms, |vm| {
        vm.pager.map_or(-1, |pager| i64::from(pager.state == PagerState::Up))
    });
    let mut text = String::new();
    encode(&mut text, &page.registry)?;
    Ok(text)
}

struct Page {
    registry: Registry,
}

impl Page {
    fn host(&mut self, host: &HostView) {
        let bytes = |bytes: Bytes| i64::try_from(bytes.0).unwrap_or(i64::MAX);
        let memory = &host.memory;
        for (name, help, value) in [
            ("host_cores", "Processors", i64::from(host.cores)),
            ("host_memory_bytes", "RAM", bytes(memory.total)),
            ("host_memory_available_bytes", "RAM that programs can still have", bytes(memory.available)),
            ("host_pool_bytes", "RAM that may be promised to machines", bytes(memory.pool)),
            ("host_promised_bytes", "RAM that is promised to machines", bytes(memory.promised)),
            ("host_local_bytes", "RAM that machines with far memory have resident", bytes(memory.local)),
            ("host_far_bytes", "Memory that machines have on memory servers", bytes(memory.far)),
            ("attachments", "Physical attachments", i64::from(host.attachments)),
            ("operations", "Operations that are running", i64::from(host.operations)),
            ("generation", "Highest generation seen", i64::try_from(host.generation.0).unwrap_or(i64::MAX)),
        ] {
            let gauge: Gauge = Gauge::default();
            gauge.set(value);
            self.registry.register(name, help, gauge);
        }
        if let Some(power) = &host.power {
            let gauge: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default();
            gauge.set(power.watts);
            let help = format!("Power in watts ({})", power.basis);
            self.registry.register("host_power_watts", help, gauge);
        }
    }

    fn states(&mut self, vms: &[VmView]) {
        let family = Family::<OfState, Gauge>::default();
        for (state, word) in [
            (VmState::Creating, "creating"),
            (VmState::Stopped, "stopped"),
            (VmState::Running, "running"),
            (VmState::Paused, "paused"),
            (VmState::Waiting, "waiting"),
            (VmState::Failed, "failed"),
            (VmState::Deleting, "deleting"),
        ] {
            let count = vms.iter().filter(|vm| vm.state == state).count();
            family.get_or_create(&OfState { state: word.to_owned() }).set(count as i64);
        }
        self.registry.register("vms", "Virtual machines", family);
    }

    /// One gauge for each VM; a negative value means that there is none.
    fn of_vms(&mut self, name: &str, help: &str, vms: &[VmView], value: impl Fn(&VmView) -> i64) {
        let family = Family::<OfVm, Gauge>::default();
        for vm in vms {
            let value = value(vm);
            if value >= 0 {
                family.get_or_create(&OfVm { vm: vm.name.to_string() }).set(value);
            }
        }
        self.registry.register(name, help, family);
    }
}
