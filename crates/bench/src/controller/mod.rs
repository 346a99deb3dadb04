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

use anyhow::Result;

pub(crate) use self::agents::Args as AgentsArgs;
pub(crate) use self::agents::run as agents_run;
pub(crate) use self::first_page::PageArgs;
pub(crate) use self::first_page::serve_page as page_run;
use self::lab::Lab;
use crate::course::{Course, Group, Options};

/// Which figures, and how thoroughly.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this group of figures; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(GROUPS.map(|group| group.name)))]
    only: Vec<String>,
    #[command(flatten)]
    options: Options,
}

const GROUPS: [Group<Lab>; 5] = [
    Group { name: "decision", run: decision::run, figures: decision::figures },
    Group { name: "reservations", run: reservations::run, figures: reservations::figures },
    Group { name: "first-page", run: first_page::run, figures: first_page::figures },
    Group { name: "power", run: power::run, figures: power::figures },
    Group { name: "memory", run: memory::run, figures: memory::figures },
];

/// Measures them.
pub(crate) fn run(args: &Args) -> Result<()> {
    let lab = Lab::new(args.options.quick)?;
    let (groups, only) = (&GROUPS[..], &args.only[..]);
    Course { name: "controller", groups, only, rounds: 3, options: &args.options }.run(&lab)
}
