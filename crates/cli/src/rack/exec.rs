//! `rackmem rack exec RACK BRICK -- PROGRAM`: becomes a program in a brick, with what it needs to use the rack's far memory.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{self, ExitCode};

use anyhow::anyhow;
use clap::Args;
use rackmem_emulate::{Racks, enter};
use rackmem_rack::{Name, Offer};

/// Run a program in a brick; `rackmem run` there reaches memory bricks over circuits only
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The rack
    rack: Name,
    /// The brick
    brick: Name,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

pub(super) fn run(racks: &Racks, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let rack = racks.find(&arguments.rack)?;
    let runtime = rack.runtime_directory(&arguments.brick)?;
    let place = rack.layout.brick(&arguments.brick)?;
    enter(&place.namespace)?;
    let mut command = process::Command::new(&arguments.program[0]);
    command.args(&arguments.program[1..]);
    command.env("RACKMEM_RUNTIME_DIR", runtime).env("RACKMEM_TOKEN_FILE", rack.token_file());
    if matches!(place.offers, Offer::Compute { .. }) {
        command.env("RACKMEM_AGENT", format!("{}:{}", place.management, place.port));
        command.env("RACKMEM_AGENT_TOKEN_FILE", rack.token_file());
    }
    // This comes back only if there is no such program.
    let error = command.exec();
    Err(anyhow!("cannot run '{}': {error}", arguments.program[0].display()))
}
