//! `rackmem rack list` and `rackmem rack show`.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::Args;
use rackmem_emulate::{Racks, Standing};
use rackmem_rack::{Name, Offer};
use serde::Serialize;

use super::up;
use crate::{facts, out, style};

/// What a narrow terminal does without.
const SPARE: [&str; 2] = ["NAMESPACE", "DATA"];

/// List the racks of this machine
#[derive(Args, Debug)]
pub(super) struct List {
    /// Everything, as JSON
    #[arg(long)]
    json: bool,
}

/// Show what a rack consists of and where it is reached
#[derive(Args, Debug)]
pub(super) struct Show {
    /// The rack
    #[arg(default_value = up::NAME)]
    name: Name,
    /// Everything, as JSON
    #[arg(long)]
    json: bool,
}

/// A rack as scripts read it.
#[derive(Serialize)]
struct Listed {
    name: Name,
    /// All of it was made.
    complete: bool,
    /// Its controller answers.
    controller: bool,
}

/// What a rack consists of, as scripts read it.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    rack: Listed,
    directory: PathBuf,
    parts: Vec<Part>,
}

/// A brick, a switch or the controller. What it does not have is left out.
#[derive(Serialize)]
struct Part {
    name: String,
    kind: &'static str,
    namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    /// Where its agent, memory server, driver or API is reached.
    management: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<usize>,
}

pub(super) fn list(racks: &Racks, list: &List) -> anyhow::Result<()> {
    let listed: Vec<Listed> = racks.names().into_iter().map(|name| listed(racks, name)).collect();
    if list.json {
        return out::json(&listed);
    }
    for rack in &listed {
        out::line(format_args!("{}  {}", rack.name, state(rack)))?;
    }
    Ok(())
}

fn state(rack: &Listed) -> String {
    match rack {
        Listed { complete: false, .. } => "half built; run up or down again".to_owned(),
        Listed { controller: true, .. } => "up".to_owned(),
        Listed { name, .. } => {
            format!("up, without its controller; start it with 'rackmem rack up FILE --name {name}'")
        }
    }
}

fn listed(racks: &Racks, name: Name) -> Listed {
    let rack = racks.find(&name).ok();
    Listed {
        complete: rack.as_ref().is_some_and(|rack| rack.complete),
        controller: rack.as_ref().is_some_and(Standing::controller_answers),
        name,
    }
}

pub(super) fn show(racks: &Racks, show: &Show) -> anyhow::Result<()> {
    let rack = racks.find(&show.name)?;
    let parts = parts(&rack)?;
    let (directory, known) = (rack.directory, listed(racks, show.name.clone()));
    let state = state(&known);
    if show.json {
        return out::json(&Shown { rack: known, directory, parts });
    }
    let heads = ["NAME", "KIND", "NAMESPACE", "DATA", "MANAGEMENT", "PROCESSES"];
    let rows: Vec<_> = parts.into_iter().map(row).collect();
    out::text(facts::rows(heads, &SPARE, &rows, style::width()))?;
    out::line(format_args!("directory: {}\nstate: {state}", directory.display()))
}

fn row(part: Part) -> [String; 6] {
    let processes = part.processes.map(|count| count.to_string());
    let dash = || "-".to_owned();
    let (data, processes) = (part.data.unwrap_or_else(dash), processes.unwrap_or_else(dash));
    [part.name, part.kind.to_owned(), part.namespace, data, part.management, processes]
}

fn parts(rack: &Standing) -> anyhow::Result<Vec<Part>> {
    let mut parts = vec![Part {
        name: "controller".to_owned(),
        kind: "controller",
        namespace: rack.layout.name.to_string(),
        data: None,
        // In the rack's directory.
        management: "controller.sock".to_owned(),
        processes: Some(rack.controller_processes()),
    }];
    for brick in &rack.layout.bricks {
        let at = |address: Ipv4Addr| format!("{address}:{}", brick.port);
        let (kind, data) = match brick.offers {
            Offer::Compute { .. } => ("compute", brick.data.to_string()),
            Offer::Memory { .. } => ("memory", at(brick.data)),
            Offer::Accelerator { .. } => ("accelerator", brick.data.to_string()),
        };
        parts.push(Part {
            name: brick.name.to_string(),
            kind,
            namespace: brick.namespace.clone(),
            data: Some(data),
            management: at(brick.management),
            processes: Some(rack.processes(&brick.name)?),
        });
    }
    parts.extend(rack.layout.switches.iter().map(|switch| Part {
        name: switch.name.to_string(),
        kind: "switch",
        namespace: switch.namespace.clone(),
        data: None,
        management: switch.address.clone(),
        processes: None,
    }));
    Ok(parts)
}
