//! `engine`: the figures that rackmem's engine has to reach, all measured in one run.

mod attach;
mod far_fault;
mod first_touch;
mod lab;
mod redis;
mod server;
mod threads;
mod touches;

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
}

const GROUPS: [Group<Lab>; 7] = [
    Group { name: "far-fault", run: far_fault::run, figures: far_fault::figures },
    Group { name: "touches", run: touches::run, figures: touches::figures },
    Group { name: "first-touch", run: first_touch::run, figures: first_touch::figures },
    Group { name: "threads", run: threads::run, figures: threads::figures },
    Group { name: "attach", run: attach::run, figures: attach::figures },
    Group { name: "server", run: server::run, figures: server::figures },
    Group { name: "redis", run: redis::run, figures: redis::figures },
];

/// Measures them.
pub(crate) fn run(args: &Args) -> Result<()> {
    let lab = if args.options.quick { Lab::quick()? } else { Lab::full()? };
    let (groups, only) = (&GROUPS[..], &args.only[..]);
    Course { name: "engine", groups, only, rounds: 5, options: &args.options }.run(&lab)
}
