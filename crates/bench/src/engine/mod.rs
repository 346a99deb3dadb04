//! `engine`: the figures that rackmem's engine has to reach, all measured in one run.
//!
//! Experiments come in groups. A run goes through all groups once a round, so that what changes on the machine meanwhile
//! meets everyone; a figure is made of the medians over the rounds. An experiment that fails is reported and does not end
//! the run.

mod attach;
mod far_fault;
pub(crate) mod figure;
mod first_touch;
mod lab;
mod plot;
mod redis;
mod report;
pub(crate) mod samples;
mod server;
mod threads;
mod touches;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};

use self::figure::Figure;
use self::lab::Lab;
use self::samples::Samples;

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
}

/// Experiments that belong together, and the figures that come out of them. They run in an `L`.
pub(crate) struct Group<L> {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&L, &mut Samples) -> Result<()>,
    pub(crate) figures: fn(&Samples) -> Vec<Figure>,
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

/// Rounds of a full run: an odd number, so that a median is a measurement.
const ROUNDS: u32 = 5;

/// What is to be run, and how often.
pub(crate) struct Course<'a, L> {
    /// Of the files that are written, and of the picture.
    pub(crate) name: &'a str,
    pub(crate) groups: &'a [Group<L>],
    /// The names of the groups that are wanted; all if there is none.
    pub(crate) only: &'a [String],
    pub(crate) quick: bool,
    pub(crate) rounds: u32,
    pub(crate) out: &'a Path,
}

/// Runs it. Unreached bars are shown, failed experiments are an error.
pub(crate) fn run(args: &Args) -> Result<()> {
    let lab = if args.quick { Lab::quick()? } else { Lab::full()? };
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { ROUNDS });
    let (name, groups, only) = ("engine", &GROUPS[..], &args.only[..]);
    Course { name, groups, only, quick: args.quick, rounds, out: &args.out }.run(&lab)
}

impl<L> Course<'_, L> {
    /// Runs it in `lab`, prints what came out and writes it down.
    pub(crate) fn run(&self, lab: &L) -> Result<()> {
        let (quick, rounds) = (self.quick, self.rounds);
        let chosen =
            |group: &&Group<L>| self.only.is_empty() || self.only.iter().any(|name| name == group.name);
        let mut samples = Samples::default();
        let mut failures = Vec::new();
        for round in 1..=rounds {
            for group in self.groups.iter().filter(chosen) {
                let start = Instant::now();
                eprint!("round {round}/{rounds}: {} … ", group.name);
                match (group.run)(lab, &mut samples) {
                    Ok(()) => eprintln!("{:.0} s", start.elapsed().as_secs_f64()),
                    Err(error) => {
                        eprintln!("failed: {error:#}");
                        failures.push(format!("{} in round {round}: {error:#}", group.name));
                    }
                }
            }
        }
        let figures: Vec<Figure> =
            self.groups.iter().filter(chosen).flat_map(|group| (group.figures)(&samples)).collect();
        report::print(&figures, &samples);
        report::write_json(self.out, self.name, quick, rounds, &figures, &samples, &failures)?;
        plot::write(self.out, self.name, &figures)?;
        println!("written: {}", self.out.display());
        ensure!(failures.is_empty(), "experiments failed:\n  {}", failures.join("\n  "));
        Ok(())
    }
}
