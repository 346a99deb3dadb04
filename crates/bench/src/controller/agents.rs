//! `rackmem-bench agents`: simulated agents as a process of their own, so that what they take is not the controller's.

use std::io::Write;

use anyhow::{Context, Result};
use rackmem_agent_sim::{Latencies, SimConfig, SimFleet};
use rackmem_api::serve::{Closing, Listen, ServeConfig, Server};
use rackmem_types::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Where they listen, and how many there are.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where they are served: agent N at /agents/cN.
    #[arg(long, value_name = "ADDRESS")]
    listen: Listen,
    /// How many.
    #[arg(long, value_name = "N")]
    count: u64,
}

/// More than a compute brick's table can hold.
const FAR: Bytes = Bytes(1 << 50);

/// Serves them until it is ended.
pub(crate) fn run(args: &Args) -> Result<()> {
    // A controller has connections to each agent; the usual limit of a process is for a thousand.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = |number| SimConfig {
            name: format!("c{number}"),
            far: FAR,
            latencies: Latencies::none(),
            ..SimConfig::default()
        };
        let fleet = SimFleet::new((0..args.count).map(config));
        let server =
            Server::open(&ServeConfig { listen: vec![args.listen.clone()], ..ServeConfig::default() })?;
        writeln!(std::io::stdout(), "ready").context("nobody listens")?;
        server.run(fleet.router(), Closing::default()).await;
        Ok(())
    })
}
