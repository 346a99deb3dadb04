//! `vm`: the figures that virtual machines with far memory have to reach, all measured in one run, with the real agent, real QEMU
//! and the guest of `cargo xtask guest`.

mod attach;
mod brick;
mod lab;
mod reads;
mod resize;
mod restart;

use anyhow::Result;

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

/// Measures them.
pub(crate) fn run(args: &Args) -> Result<()> {
    let lab = Lab::new(args.options.quick, args.accelerator.as_deref())?;
    let (groups, only) = (&GROUPS[..], &args.only[..]);
    Course { name: "vm", groups, only, rounds: 3, options: &args.options }.run(&lab)
}
