//! Circuits by hand, on racks without a controller: `rackmem rack connect`, `disconnect`, `circuits`.

use clap::Args;
use rackmem_emulate::Racks;
use rackmem_rack::Name;
use rackmem_switch::{Change, Observed, Pair, SwitchDriver, TcSwitch};

use crate::out;

/// Set circuits on a switch: all of them, or on a mistake none
#[derive(Args, Debug)]
pub(super) struct Connect {
    #[command(flatten)]
    of: Circuits,
    /// End these circuits in the same change
    #[arg(long, value_name = "PORT-PORT", value_delimiter = ',')]
    instead_of: Vec<Pair>,
}

/// End circuits on a switch
#[derive(Args, Debug)]
pub(super) struct Disconnect {
    #[command(flatten)]
    of: Circuits,
}

#[derive(Args, Debug)]
struct Circuits {
    #[command(flatten)]
    switch: Asked,
    /// Pairs of ports, for example 0-4
    #[arg(required = true, value_name = "PORT-PORT")]
    pairs: Vec<Pair>,
    /// In the name of this generation, refused if the switch has seen a newer one (default: the newest that it has seen)
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
}

/// Show the circuits of a switch, as they really are
#[derive(Args, Debug)]
pub(super) struct Asked {
    /// The rack
    rack: Name,
    /// The switch
    switch: Name,
}

pub(super) fn connect(racks: &Racks, Connect { of, instead_of }: &Connect) -> anyhow::Result<()> {
    make(racks, of, &Change { disconnect: instead_of.clone(), connect: of.pairs.clone() })
}

pub(super) fn disconnect(racks: &Racks, Disconnect { of }: &Disconnect) -> anyhow::Result<()> {
    make(racks, of, &Change { disconnect: of.pairs.clone(), connect: Vec::new() })
}

pub(super) fn show(racks: &Racks, asked: &Asked) -> anyhow::Result<()> {
    print(&open(racks, asked)?.observed()?)
}

fn make(racks: &Racks, of: &Circuits, change: &Change) -> anyhow::Result<()> {
    let switch = open(racks, &of.switch)?;
    let generation = match of.generation {
        Some(generation) => generation,
        None => switch.observed()?.generation,
    };
    print(&switch.change(change, generation)?)
}

fn open(racks: &Racks, asked: &Asked) -> anyhow::Result<TcSwitch> {
    let rack = racks.find(&asked.rack)?;
    Ok(TcSwitch::open(&rack.layout.switch(&asked.switch)?.namespace)?)
}

fn print(observed: &Observed) -> anyhow::Result<()> {
    let pairs: Vec<String> = observed.pairs.iter().map(Pair::to_string).collect();
    let pairs = if pairs.is_empty() { "none".to_owned() } else { pairs.join(" ") };
    out::line(format_args!("circuits: {pairs} (generation {})", observed.generation))
}
