//! A run of a benchmark: what the benchmarks have in common.
//!
//! Experiments come in groups. A run goes through all groups once a round, so that what changes on the machine meanwhile
//! meets everyone; a figure is made of the medians over the rounds. An experiment that fails is reported and does not end
//! the run.

pub(crate) mod figure;
mod plot;
mod report;
pub(crate) mod samples;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};

use self::figure::Figure;
use self::samples::Samples;

/// How thoroughly, and where to.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// A short run on less of everything: shows that everything works, its numbers say little.
    #[arg(long)]
    pub(crate) quick: bool,
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

/// What is to be run, and how often.
pub(crate) struct Course<'a, L> {
    /// Of the files that are written, and of the picture.
    pub(crate) name: &'a str,
    pub(crate) groups: &'a [Group<L>],
    /// The names of the groups that are wanted; all if there is none.
    pub(crate) only: &'a [String],
    /// Rounds of a full run: an odd number, so that a median is a measurement.
    pub(crate) rounds: u32,
    pub(crate) options: &'a Options,
}

impl<L> Course<'_, L> {
    /// Runs it in `lab`, prints what came out and writes it down. Unreached bars are shown, failed experiments are an error.
    pub(crate) fn run(&self, lab: &L) -> Result<()> {
        let Options { quick, rounds, out } = self.options;
        let rounds = rounds.unwrap_or(if *quick { 1 } else { self.rounds });
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
        report::write_json(out, self.name, *quick, rounds, &figures, &samples, &failures)?;
        plot::write(out, self.name, &figures)?;
        println!("written: {}", out.display());
        ensure!(failures.is_empty(), "experiments failed:\n  {}", failures.join("\n  "));
        Ok(())
    }
}
