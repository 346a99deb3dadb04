//! `rackmem limit`: changes the local limit of a live target.

use std::process::ExitCode;

use clap::Args;
use rackmem_control::Client;
use rackmem_types::Bytes;

use crate::options::parse_limit;
use crate::out;

/// Change how much of a process's memory may stay in this machine's RAM
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The process
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: u32,
    /// The new local limit, for example 512MiB
    #[arg(value_parser = parse_limit)]
    pub(crate) size: Bytes,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    Client::open(arguments.pid)?.limit_set(arguments.size)?;
    out::line(format_args!("process {}: local limit {}", arguments.pid, arguments.size))?;
    Ok(ExitCode::SUCCESS)
}
