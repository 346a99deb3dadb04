//! Measures rackmem beside its peers, and shows it at work: the workloads, the peers, the floor, `engine`, `vm`, `controller` and `demo`.
//!
//! The product is driven through the `rackmem` program alone, as a user would. Nothing here is part of the product.

mod client;
mod controller;
mod course;
mod demo;
mod engine;
mod floor;
mod histogram;
mod peer;
mod process;
mod product;
mod random;
mod undo;
mod vm;
mod workload;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Workloads, peers, figures and the demonstration of rackmem.
#[derive(Parser)]
#[command(name = "rackmem-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show rackmem at work: Redis in far memory, a snapshot, an attach to a running program.
    Demo,
    /// Measure the engine's figures: a table, JSON and a plot.
    Engine(engine::Args),
    /// Measure the figures of virtual machines: a table, JSON and a plot.
    Vm(vm::Args),
    /// Measure the figures of the controller: a table, JSON and a plot.
    Controller(controller::Args),
    /// Simulated agents, as a process.
    Agents(controller::AgentsArgs),
    /// A client of a memory server that serves one page.
    Page(controller::PageArgs),
    /// Workload: touch pages and check what they hold.
    Touch(workload::touch::Args),
    /// Workload: write to each page of fresh memory.
    FirstTouch(workload::first_touch::Args),
    /// Workload: report the longest pause.
    Spin(workload::spin::Args),
    /// Load on a server of pages: Redis, memcached or a memory server.
    Load(client::load::Args),
    /// The floor of a far fault: the program.
    Floor(floor::app::Args),
    /// The floor of a far fault: the pager, whose standard input is the userfaultfd.
    FloorPager(floor::pager::Args),
    /// The floor of a far fault: the server.
    FloorServer(floor::server::Args),
}

fn main() -> ExitCode {
    let result = run(Cli::parse().command);
    undo::stop_if_ending();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rackmem-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo => {
            undo::install()?;
            demo::run()
        }
        Command::Engine(args) => {
            undo::install()?;
            engine::run(&args)
        }
        Command::Vm(args) => {
            undo::install()?;
            vm::run(&args)
        }
        Command::Controller(args) => {
            undo::install()?;
            controller::run(&args)
        }
        Command::Agents(args) => controller::agents_run(&args),
        Command::Page(args) => controller::page_run(&args),
        Command::Touch(args) => workload::touch::run(&args),
        Command::FirstTouch(args) => workload::first_touch::run(&args),
        Command::Spin(args) => workload::spin::run(&args),
        Command::Load(args) => client::load::run(&args),
        Command::Floor(args) => floor::app::run(&args),
        Command::FloorPager(args) => floor::pager::run(args),
        Command::FloorServer(args) => floor::server::run(args),
    }
}
