//! `rackmem rack …`: a whole rack on this machine. Reads the command line, calls `rackmem-emulate` and `rackmem-switch`, and prints.

mod circuits;
mod exec;
mod show;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use rackmem_emulate::Racks;
use rackmem_rack::Name;

/// Build a rack on this machine: bricks, cables and switches as network namespaces
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Where the racks of this machine are kept
    #[arg(
        long,
        global = true,
        value_name = "DIRECTORY",
        env = "RACKMEM_RACKS",
        default_value = "/run/rackmem/racks"
    )]
    racks: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Arguments),
    /// Take a rack down: everything that was made for it, whatever state it is in
    Down {
        /// The rack
        #[arg(default_value = up::NAME)]
        name: Name,
    },
    List(show::List),
    Show(show::Show),
    Exec(exec::Arguments),
    Connect(circuits::Connect),
    Disconnect(circuits::Disconnect),
    Circuits(circuits::Asked),
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let racks = Racks::new(arguments.racks.clone());
    match &arguments.command {
        Command::Up(up) => up::run(&racks, up)?,
        Command::Down { name } => racks.down(name)?,
        Command::List(list) => show::list(&racks, list)?,
        Command::Show(show) => show::show(&racks, show)?,
        Command::Exec(exec) => return exec::run(&racks, exec),
        Command::Connect(circuits) => circuits::connect(&racks, circuits)?,
        Command::Disconnect(circuits) => circuits::disconnect(&racks, circuits)?,
        Command::Circuits(asked) => circuits::show(&racks, asked)?,
    }
    Ok(ExitCode::SUCCESS)
}
