//! `controller`: the figures that the SDM controller has to reach: its planner in this process, itself as a process over simulated
//! agents, and a real rack in namespaces.

mod agents;
mod decision;
mod first_page;
mod fleet;
mod lab;
mod load;
mod memory;
mod power;
mod reservations;
#[path = "../../../rack/tests/support/mod.rs"]
mod support;

use std::path::PathBuf;

use anyhow::Result;

pub(crate) use self::agents::Args as AgentsArgs;
pub(crate) use self::agents::run as agents_run;
pub(crate) use self::first_page::PageArgs;
pub(crate) use self::first_page::serve_page as page_run;
use self::lab::Lab;
use crate::engine::{Course, Group};

/// Which figures, and how thoroughly.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// A short run of a tenth of everything: shows that everything works, its numbers say little.
    #[arg(long)]
    quick: bool,
    /// Only this group of figures; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(GROUPS.map(|group| group.name)))]
    only: Vec<String>,
    /// How often everything is measured.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Directory for the JSON file and the plot.
    #[arg(long, value_name = "DIRECTORY", default_value = "out/bench")]
    out: PathBuf,
}

const GROUPS: [Group<Lab>; 5] = [
    Group { name: "decision", run: decision::run, figures: decision::figures },
    Group { name: "reservations", run: reservations::run, figures: reservations::figures },
    Group { name: "first-page", run: first_page::run, figures: first_page::figures },
    Group { name: "power", run: power::run, figures: power::figures },
    Group { name: "memory", run: memory::run, figures: memory::figures },
];

/// Rounds of a full run: an odd number, so that a median is a measurement.
const ROUNDS: u32 = 3;

/// Runs it. Unreached bars are shown, failed experiments are an error.
pub(crate) fn run(args: &Args) -> Result<()> {
    let lab = Lab::new(args.quick)?;
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { ROUNDS });
    let (groups, only) = (&GROUPS[..], &args.only[..]);
    Course { name: "controller", groups, only, quick: args.quick, rounds, out: &args.out }.run(&lab)
}
