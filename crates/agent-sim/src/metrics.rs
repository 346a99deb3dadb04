//! The host's numbers in the text format of Prometheus (OpenMetrics 1.0).

use std::fmt::Write;

use rackmem_api::agent::HostView;

/// The metrics of a brick.
pub(crate) fn text(host: &HostView) -> String {
    let memory = &host.memory;
    let gauges: [(&str, &str, u64); 9] = [
        ("vms", "Virtual machines.", host.vms.into()),
        ("attachments", "Physical attachments.", host.attachments.into()),
        ("operations_running", "Operations that are running.", host.operations.into()),
        ("generation", "Highest generation that was seen.", host.generation.0),
        ("memory_total_bytes", "Memory of the brick.", memory.total.0),
        ("memory_pool_bytes", "Memory that virtual machines may have resident.", memory.pool.0),
        ("memory_promised_bytes", "Of the pool, what is promised.", memory.promised.0),
        ("memory_local_bytes", "Memory that virtual machines have resident.", memory.local.0),
        ("memory_far_bytes", "Memory that virtual machines have on memory servers.", memory.far.0),
    ];
    let mut text = String::new();
    for (name, help, value) in gauges {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "# HELP rackmem_agent_{name} {help}\n# TYPE rackmem_agent_{name} gauge\nrackmem_agent_{name} {value}\n"
        );
    }
    text.push_str("# EOF\n");
    text
}
