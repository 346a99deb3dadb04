//! `rackmem detach`: brings a target's memory home and lets it go.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use rackmem_control::Client;
use rackmem_types::Bytes;

use crate::out;

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
    wait_for_end(arguments.pid);
    out::line(format_args!(
        "process {}: detached, {fetched} brought home in {milliseconds} ms",
        arguments.pid
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Waits until the pager has ended, so that the process can be attached to again at once.
fn wait_for_end(pid: u32) {
    /// It only closes connections; longer than this it is stuck, which is no reason to hold the user up.
    const PATIENCE: Duration = Duration::from_secs(5);
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE && rackmem_control::targets().is_ok_and(|targets| targets.contains(&pid))
    {
        thread::sleep(Duration::from_millis(5));
    }
}
