//! `rackmem brick …`: registration (S9), and bricks as they are.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context;
use clap::{Args, Subcommand};
use rackmem_api::controller::{BrickKind, BrickNew, BrickView, CableNew, DrainRequest, RackFile};
use rackmem_rack::{Name, PortRef};
use rackmem_types::Bytes;

use super::ask::ControllerOptions;
use super::word;
use crate::progress::finish;
use crate::{facts, out, style};

/// What a narrow terminal does without.
const SPARE: [&str; 3] = ["ADDRESS", "LOCAL FREE", "TRAY"];

/// Register, drain and remove bricks, and see how they are
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    controller: ControllerOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the bricks
    List,
    /// Show one brick
    Show {
        /// The brick
        name: Name,
    },
    Register(Register),
    /// Move away what lies on a brick; it takes nothing new any more
    Drain {
        /// The brick
        name: Name,
        /// Let it take new things again
        #[arg(long)]
        end: bool,
        /// It is gone for good and will not answer again: release what needs it, then remove it
        #[arg(long, conflicts_with = "end")]
        lost: bool,
    },
    /// Remove a brick of which nothing is held, with its cables
    Remove {
        /// The brick
        name: Name,
    },
}

/// Register a brick and its cables, or all of a rack file
#[derive(Args, Debug)]
struct Register {
    /// Name of the brick
    #[arg(required_unless_present = "rack", conflicts_with = "rack")]
    name: Option<Name>,
    /// Everything in this rack file instead, or on a mistake nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tray", "memory", "cores", "slots", "cables", "address"])]
    rack: Option<PathBuf>,
    /// The tray that it sits in
    #[arg(long, required_unless_present = "rack")]
    tray: Option<Name>,
    /// A memory brick with a pool of this size
    #[arg(long, value_name = "SIZE", required_unless_present_any = ["rack", "cores", "slots"])]
    memory: Option<Bytes>,
    /// A compute brick with so many cores
    #[arg(long, value_name = "N", conflicts_with_all = ["memory", "slots"], requires = "local")]
    cores: Option<u32>,
    /// Local memory of the compute brick
    #[arg(long, value_name = "SIZE", requires = "cores")]
    local: Option<Bytes>,
    /// An accelerator brick with so many regions
    #[arg(long, value_name = "N", conflicts_with = "memory", requires = "model")]
    slots: Option<u32>,
    /// Model of the accelerator
    #[arg(long, requires = "slots")]
    model: Option<String>,
    /// How many ports it has
    #[arg(long, value_name = "N", default_value = "1")]
    ports: u16,
    /// A cable, PORT=SWITCH:PORT, for example 0=s1:3; repeat it
    #[arg(long = "cable", value_name = "PORT=SWITCH:PORT")]
    cables: Vec<Cable>,
    /// One-way latency of its cables, nanoseconds
    #[arg(long, value_name = "NS", default_value = "100")]
    latency_ns: u32,
    /// Bandwidth of its cables, megabits per second
    #[arg(long, value_name = "N", default_value = "10000")]
    mbps: u32,
    /// What it draws when on, watts
    #[arg(long, value_name = "N", default_value = "0")]
    watts: u32,
    /// Where its agent or memory server listens: HOST:PORT, or DATA,MANAGEMENT where these are two nets
    #[arg(long)]
    address: Option<String>,
}

/// A cable, as a command line has it.
#[derive(Clone, Debug)]
pub(crate) struct Cable {
    port: u16,
    to: PortRef,
}

impl FromStr for Cable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no cable: write PORT=SWITCH:PORT, for example 0=s1:3");
        let (port, to) = text.split_once('=').ok_or_else(wrong)?;
        Ok(Self { port: port.parse().map_err(|_| wrong())?, to: to.parse().map_err(|_| wrong())? })
    }
}

/// Cables as they are told to the controller, all of one kind.
pub(crate) fn cables(cables: &[Cable], latency_ns: u32, mbps: u32) -> Vec<CableNew> {
    let told = |cable: &Cable| CableNew { port: cable.port, to: cable.to.to_string(), latency_ns, mbps };
    cables.iter().map(told).collect()
}

impl Arguments {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        let options = &self.controller;
        match &self.command {
            Command::List => list(options).await,
            Command::Show { name } => show(options, name).await,
            Command::Register(register) => register.run(options).await,
            Command::Drain { name, end, lost } => {
                let client = options.changing().await?;
                let asked =
                    client.brick_drain(name.as_str(), DrainRequest { draining: !end, lost: *lost }).await?;
                let done = if *end { "takes new things again" } else { "drained: nothing of it is held" };
                finish(options.telling(), &client, asked, &format!("{name}: {done}")).await
            }
            Command::Remove { name } => {
                let client = options.changing().await?;
                let asked = client.brick_remove(name.as_str()).await?;
                finish(options.telling(), &client, asked, &format!("{name}: removed")).await
            }
        }
    }
}

impl Register {
    async fn run(&self, options: &ControllerOptions) -> anyhow::Result<ExitCode> {
        let client = options.changing().await?;
        if let Some(file) = &self.rack {
            let shown = file.display();
            let file = crate::rack_file::read(file)?;
            let asked = client.rack_register(&RackFile { file }).await.with_context(|| shown.to_string())?;
            let done = format!("{shown}: registered");
            return finish(options.telling(), &client, asked, &done).await;
        }
        let brick = self.brick().context("a brick needs a name, a tray, and --memory, --cores or --slots")?;
        let asked = client.brick_register(&brick).await?;
        finish(options.telling(), &client, asked, &format!("{}: registered", brick.name)).await
    }

    /// The brick as it is told to the controller; none if the command line did not describe one.
    fn brick(&self) -> Option<BrickNew> {
        let offers = match (self.memory, self.cores, self.slots) {
            (Some(size), ..) => BrickKind::Memory { size },
            (_, Some(cores), _) => BrickKind::Compute { cores, local: self.local? },
            (_, _, Some(slots)) => BrickKind::Accelerator { model: self.model.clone()?, slots },
            _ => return None,
        };
        Some(BrickNew {
            name: self.name.as_ref()?.to_string(),
            tray: self.tray.as_ref()?.to_string(),
            ports: self.ports,
            offers,
            watts: self.watts,
            address: self.address.clone(),
            cables: cables(&self.cables, self.latency_ns, self.mbps),
        })
    }
}

async fn list(options: &ControllerOptions) -> anyhow::Result<ExitCode> {
    let bricks = options.client()?.brick_list().await?;
    if options.json {
        out::json(&bricks)?;
    } else if bricks.is_empty() {
        out::note("no brick is registered; register a rack file with 'rackmem brick register --rack FILE'");
    } else {
        let rows: Vec<_> = bricks.iter().map(row).collect();
        let heads = ["NAME", "KIND", "TRAY", "STATE", "HAS", "TAKEN", "LOCAL FREE", "ADDRESS"];
        out::text(facts::rows(heads, &SPARE, &rows, style::width()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(brick: &BrickView) -> [String; 8] {
    let (kind, has, taken) = amounts(brick);
    let local = match brick.offers {
        BrickKind::Compute { .. } => brick.local_free.to_string(),
        _ => "-".to_owned(),
    };
    let address = brick.address.clone().unwrap_or_else(|| "-".to_owned());
    [brick.name.clone(), kind.to_owned(), brick.tray.clone(), state(brick), has, taken, local, address]
}

fn amounts(brick: &BrickView) -> (&'static str, String, String) {
    let (capacity, used) = (brick.capacity, brick.used);
    match &brick.offers {
        BrickKind::Compute { .. } => ("compute", format!("{capacity} cores"), format!("{used} cores")),
        BrickKind::Memory { .. } => ("memory", Bytes(capacity).to_string(), Bytes(used).to_string()),
        BrickKind::Accelerator { .. } => {
            ("accelerator", format!("{capacity} slots"), format!("{used} slots"))
        }
    }
}

fn state(brick: &BrickView) -> String {
    let mut state = word(&brick.power);
    if !brick.reachable {
        state += ", silent";
    }
    if brick.draining {
        state += ", draining";
    }
    state
}

async fn show(options: &ControllerOptions, name: &Name) -> anyhow::Result<ExitCode> {
    let brick = options.client()?.brick_show(name.as_str()).await?;
    if options.json {
        out::json(&brick)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (kind, has, taken) = amounts(&brick);
    let (local, model) = match &brick.offers {
        BrickKind::Compute { local, .. } => (Some(format!("{} of {local} free", brick.local_free)), None),
        BrickKind::Memory { .. } => (None, None),
        BrickKind::Accelerator { model, .. } => (None, Some(model.clone())),
    };
    let text = facts::facts(
        &[
            ("name", Some(brick.name.clone())),
            ("kind", Some(kind.to_owned())),
            ("model", model),
            ("tray", Some(brick.tray.clone())),
            ("state", Some(state(&brick))),
            ("ports", Some(brick.ports.to_string())),
            ("has", Some(has)),
            ("taken", Some(taken)),
            ("local memory", local),
            ("power", (brick.watts > 0).then(|| format!("{} W when on", brick.watts))),
            ("address", brick.address.clone()),
        ],
        style::width(),
    );
    out::text(text)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cables_are_written_with_both_ports() {
        let cable: Cable = "0=s1:3".parse().unwrap();
        assert_eq!((cable.port, cable.to.to_string().as_str()), (0, "s1:3"));
        for wrong in ["s1:3", "x=s1:3", "0=s1", "0=", ""] {
            assert!(wrong.parse::<Cable>().unwrap_err().contains("0=s1:3"), "{wrong}");
        }
    }
}
