//! `rackmem rack list` and `rackmem rack show`.

use std::io::{self, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use rackmem_emulate::Racks;
use rackmem_rack::{Name, Offer};

pub(super) fn list(racks: &Racks) -> anyhow::Result<()> {
    let mut out = io::stdout();
    for name in racks.names() {
        let state = match racks.find(&name) {
            Ok(rack) if rack.complete => "up",
            _ => "half built; run up or down again",
        };
        writeln!(out, "{name}  {state}")?;
    }
    Ok(())
}

pub(super) fn show(racks: &Racks, name: &Name) -> anyhow::Result<()> {
    let rack = racks.find(name)?;
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["NAME", "KIND", "NAMESPACE", "DATA", "MANAGEMENT", "PROCESSES"]);
    for brick in &rack.layout.bricks {
        let kind = match brick.offers {
            Offer::Compute { .. } => "compute",
            Offer::Memory { .. } => "memory",
            Offer::Accelerator { .. } => "accelerator",
        };
        table.add_row([
            brick.name.to_string(),
            kind.to_owned(),
            brick.namespace.clone(),
            match brick.offers {
                Offer::Memory { .. } => format!("{}:{}", brick.data, brick.port),
                _ => brick.data.to_string(),
            },
            format!("{}:{}", brick.management, brick.port),
            rack.processes(&brick.name)?.to_string(),
        ]);
    }
    for switch in &rack.layout.switches {
        table.add_row([switch.name.as_str(), "switch", &switch.namespace, "", &switch.address, ""]);
    }
    let mut out = io::stdout();
    for line in table.to_string().lines() {
        writeln!(out, "{}", line.trim())?;
    }
    writeln!(out, "directory: {}", rack.directory.display())?;
    Ok(())
}
