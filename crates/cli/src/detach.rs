//! `rackmem detach`: brings a target's memory home and lets it go.

use std::process::ExitCode;

use clap::Args;
use rackmem_control::Client;
use rackmem_types::Bytes;

/// Bring all of a process's memory home and let it go; it runs on
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The process
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: u32,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let report = Client::open(arguments.pid)?.detach()?;
    let fetched = Bytes::from_pages(report.pages_fetched);
    let milliseconds = report.took_us.div_ceil(1000);
    println!("process {}: detached, {fetched} brought home in {milliseconds} ms", arguments.pid);
    Ok(ExitCode::SUCCESS)
}
