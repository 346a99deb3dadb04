//! `cargo xtask`: what is done to this repository beside building it. It holds no logic of rackmem itself, and needs few
//! crates, so that it is there at once.

mod commands;
mod guest;
mod setup;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::commands::{become_program, build_release, release_program, root};

/// Sets up, tests, shows and measures rackmem
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the programs that the tests and benchmarks use
    Setup,
    /// Check format and lints, and run every test
    Test {
        /// Do not look for missing programs first
        #[arg(long)]
        no_setup: bool,
        /// Let the end-to-end tests drive the program as users get it; its build takes minutes more
        #[arg(long)]
        release: bool,
        /// Further arguments of `cargo nextest run`, for example a filter
        #[arg(last = true)]
        nextest: Vec<String>,
    },
    /// Build the small virtual machine that tests boot: a kernel and an initramfs
    Guest(guest::Options),
    /// Show rackmem at work on this machine, with every byte checked
    Demo,
    /// Measure rackmem beside its peers
    Bench {
        #[command(subcommand)]
        bench: Bench,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// The engine's figures: a table, JSON and a plot
    #[command(disable_help_flag = true)]
    Engine {
        /// Options of `rackmem-bench engine`: --quick, --only NAME, --rounds N, --out DIRECTORY
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// The figures of virtual machines: a table, JSON and a plot
    #[command(disable_help_flag = true)]
    Vm {
        /// Options of `rackmem-bench vm`: --quick, --only NAME, --rounds N, --out DIRECTORY, --accelerator KIND
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// The controller's figures: a table, JSON and a plot
    #[command(disable_help_flag = true)]
    Controller {
        /// Options of `rackmem-bench controller`: --quick, --only NAME, --rounds N, --out DIRECTORY
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Setup => setup::everything(),
        Command::Test { no_setup, release, nextest } => {
            if !no_setup {
                setup::for_tests()?;
            }
            guest::run(&guest::Options::default())?;
            test::run(release, &nextest)
        }
        Command::Guest(options) => guest::run(&options),
        Command::Demo => {
            setup::only(&["redis-server", "python3"])?;
            bench_program("demo", &[])
        }
        Command::Bench { bench: Bench::Engine { options } } => bench_program("engine", &options),
        Command::Bench { bench: Bench::Vm { options } } => {
            guest::run(&guest::Options::default())?;
            bench_program("vm", &options)
        }
        Command::Bench { bench: Bench::Controller { options } } => bench_program("controller", &options),
    }
}

fn bench_program(subcommand: &str, options: &[String]) -> Result<()> {
    build_release()?;
    let program = release_program("rackmem-bench")?;
    become_program(std::process::Command::new(program).current_dir(root()?).arg(subcommand).args(options))
}
