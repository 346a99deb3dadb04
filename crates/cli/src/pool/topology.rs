//! `rackmem topology`: the rack as a graph, as lines of text or drawn.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use rackmem_api::controller::Topology;

use super::ask::ControllerOptions;
use super::svg;
use crate::out;

/// Show racks, trays, bricks, switches, cables and circuits
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Draw it into this file instead
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    controller: ControllerOptions,
}

impl Arguments {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        let topology = self.controller.client()?.topology().await?;
        if let Some(file) = &self.svg {
            let shown = file.display();
            std::fs::write(file, svg::svg(&topology)).with_context(|| format!("cannot write {shown}"))?;
            out::line(format_args!("{shown}: written"))?;
        } else if self.controller.json {
            out::json(&topology)?;
        } else {
            out::text(text(&topology))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Racks with their trays and what is in these, then cables, then circuits.
fn text(topology: &Topology) -> String {
    let mut text = String::new();
    let switches = |place: Option<&str>| {
        let here = topology.switches.iter().filter(move |switch| switch.place.as_deref() == place);
        here.map(|switch| format!("{} ({} switch)", switch.name, switch.kind)).collect::<Vec<_>>()
    };
    for rack in &topology.racks {
        let of_rack = switches(Some(rack));
        text += &format!("rack {rack}: {}\n", listed(&of_rack));
        for tray in topology.trays.iter().filter(|tray| tray.rack == *rack) {
            let bricks = topology.bricks.iter().filter(|brick| brick.tray == tray.name);
            let names = bricks.map(|brick| brick.name.clone());
            let inside: Vec<String> = names.chain(switches(Some(&tray.name))).collect();
            text += &format!("  tray {}: {}\n", tray.name, listed(&inside));
        }
    }
    let between = switches(None);
    if !between.is_empty() {
        text += &format!("between racks: {}\n", listed(&between));
    }
    for cable in &topology.cables {
        // What nobody has stated is 0.
        let stated = |amount: u64, unit: &str| (amount > 0).then(|| format!("{amount} {unit}"));
        let said = [
            stated(cable.latency_ns.into(), "ns"),
            stated(cable.mbps.into(), "Mbit/s"),
            stated(cable.circuits.into(), if cable.circuits == 1 { "circuit" } else { "circuits" }),
        ];
        let said: Vec<String> = said.into_iter().flatten().collect();
        let colon = if said.is_empty() { "" } else { ": " };
        text += &format!("cable {}{colon}{}\n", cable.ends.join(" - "), said.join(", "));
    }
    for circuit in &topology.circuits {
        let users: Vec<String> = circuit.users.iter().map(ToString::to_string).collect();
        text += &format!(
            "circuit {}, {}, {}: {} (reservations {})\n",
            circuit.id,
            circuit.class,
            circuit.state,
            circuit.path.join(" "),
            listed(&users)
        );
    }
    text
}

fn listed(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}
