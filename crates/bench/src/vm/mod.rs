//! `vm`: the figures that virtual machines with far memory have to reach, all measured in one run, with the real agent, real QEMU
//! and the guest of `cargo xtask guest`.

mod attach;
mod brick;
mod lab;
mod reads;
mod resize;
mod restart;

use std::path::PathBuf;

use anyhow::Result;

use self::lab::Lab;
use crate::engine::{Course, Group};

/// Which figures, and how thoroughly.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// A short run on less memory: shows that everything works, its numbers say little.
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
    /// What runs the guests' processors, `kvm` or `tcg` (default: what the agent finds).
    #[arg(long, value_name = "KIND")]
    accelerator: Option<String>,
}

const GROUPS: [Group<Lab>; 4] = [
    Group { name: "resize", run: resize::run, figures: resize::figures },
    Group { name: "reads", run: reads::run, figures: reads::figures },
    Group { name: "attach", run: attach::run, figures: attach::figures },
    Group { name: "restart", run: restart::run, figures: restart::figures },
];

/// Rounds of a full run: an odd number, so that a median is a measurement. Guests boot and fill their memory in each.
const ROUNDS: u32 = 3;

/// Runs it. Unreached bars are shown, failed experiments are an error.
pub(crate) fn run(args: &Args) -> Result<()> {
    let lab = Lab::new(args.quick, args.accelerator.as_deref())?;
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { ROUNDS });
    let (groups, only) = (&GROUPS[..], &args.only[..]);
    Course { name: "vm", groups, only, quick: args.quick, rounds, out: &args.out }.run(&lab)
}
