//! `rackmem lend`: changes what far memory a live target may use.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use rackmem_control::{Client, LendReport, Lending, LentSegment};
use rackmem_far::GivenSegment;
use rackmem_types::{Bytes, ServerAddress};

use crate::options::parse_whole_pages;
use crate::out;
use crate::segment;

/// Change what far memory a process may use while it runs: name all of it, as for attach
///
/// What is new is used from now on. What lies on what is not named any more is moved to the rest first, while the process runs.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The process
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pid: u32,
    /// A memory server: HOST:PORT, unix:PATH or shm:PATH; repeat it for each
    #[arg(
        long = "memory-server",
        value_name = "ADDRESS",
        required_unless_present = "segments",
        env = "RACKMEM_MEMORY_SERVER",
        value_delimiter = ','
    )]
    memory_servers: Vec<ServerAddress>,
    /// File that names segments made for this program (`rackmem segment create`)
    #[arg(long, value_name = "FILE")]
    segments: Option<PathBuf>,
    /// Use at most this much far memory (default: as much as the memory servers give)
    #[arg(long, value_name = "SIZE", value_parser = parse_whole_pages)]
    far_max: Option<Bytes>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { pid, memory_servers, segments, far_max } = arguments;
    let given = segments.as_deref().map(segment::read).transpose()?.unwrap_or_default();
    let lent = |given: GivenSegment| {
        let GivenSegment { server, segment, owner, first, pages } = given;
        LentSegment { server, segment, token: owner, first, pages }
    };
    let lending = Lending {
        servers: memory_servers
            .iter()
            .cloned()
            .map(crate::options::absolute_server)
            .collect::<Result<_, _>>()?,
        segments: given.into_iter().map(lent).collect(),
        far_max: *far_max,
    };
    match Client::open(*pid)?.lend(lending)? {
        LendReport::InForce => out::line(format_args!("process {pid}: what it may use has changed"))?,
        LendReport::InUse(what) => {
            bail!("{what}: name more far memory, or detach the process and attach it again")
        }
    }
    Ok(ExitCode::SUCCESS)
}
