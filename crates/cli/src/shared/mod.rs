//! `rackmem shared`: memory that several bricks share, for programs on one of them. Its content is on the memory servers and
//! nowhere else, so what is written on one brick is read on the others.

mod mount;

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow, ensure};
use clap::{Args, Subcommand};
use rackmem_api::agent::{AgentClient, SharedPart};
use rackmem_api::client::Endpoint;
use rackmem_api::problem::ProblemType;
use rackmem_api::{ApiError, GroupName};
use rackmem_far::{GivenSegment, SharedMemory};
use rackmem_types::{Bytes, PAGE_SIZE};

use crate::segment::{self, Proof};
use crate::token;

/// What is moved at a time: one request's worth of pages.
const CHUNK: usize = 1 << 20;

/// Read and write memory that several bricks share
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write what the memory holds to standard output
    Read(ReadCommand),
    /// Write standard input into the memory
    Write(WriteCommand),
    /// Show the memory as a file, for any program, until it is unmounted
    Mount(mount::Arguments),
}

#[derive(Args, Debug)]
struct ReadCommand {
    #[command(flatten)]
    memory: Memory,
    /// First byte
    #[arg(long, value_name = "SIZE", default_value = "0")]
    offset: Bytes,
    /// How much (default: all from there on)
    #[arg(long, value_name = "SIZE")]
    size: Option<Bytes>,
}

#[derive(Args, Debug)]
struct WriteCommand {
    #[command(flatten)]
    memory: Memory,
    /// First byte
    #[arg(long, value_name = "SIZE", default_value = "0")]
    offset: Bytes,
}

/// Which memory, and who tells where it is.
#[derive(Args, Debug)]
struct Memory {
    /// Its name, as 'rackmem reserve --init' gave it
    #[arg(required_unless_present = "segments", conflicts_with = "segments")]
    group: Option<GroupName>,
    /// Without an agent: the segments in this file, as 'rackmem segment create' writes it
    #[arg(long, value_name = "FILE")]
    segments: Option<PathBuf>,
    /// The agent of this brick: HOST:PORT, https://HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDRESS", env = "RACKMEM_AGENT", default_value = crate::vm::AGENT)]
    agent: Endpoint,
    /// File with your token for the agent
    #[arg(long, value_name = "FILE", env = "RACKMEM_AGENT_TOKEN_FILE")]
    agent_token_file: Option<PathBuf>,
    #[command(flatten)]
    proof: Proof,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Read(command) => read(command),
        Command::Write(command) => write(command),
        Command::Mount(command) => mount::run(command),
    }
}

impl Memory {
    fn open(&self) -> anyhow::Result<SharedMemory> {
        let parts = match (&self.group, &self.segments) {
            (Some(group), _) => self.of_agent(group)?,
            (None, Some(file)) => segment::read(file)?,
            (None, None) => Vec::new(),
        };
        Ok(SharedMemory::open(&parts, &self.proof.credentials()?)?)
    }

    /// The parts as the brick's agent has them.
    fn of_agent(&self, group: &GroupName) -> anyhow::Result<Vec<GivenSegment>> {
        let tls = self.proof.tls.files();
        let endpoint = if tls.is_some() { self.agent.clone().with_tls() } else { self.agent.clone() };
        let client = AgentClient::new(
            endpoint,
            tls.as_ref(),
            token::text(self.agent_token_file.as_deref())?.as_deref(),
        )?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let view = runtime.block_on(client.shared_show(group)).map_err(|error| match error {
            ApiError::Problem(problem) if problem.kind == ProblemType::NotFound => anyhow!(
                "this brick has no part in '{group}': join it with 'rackmem reserve --compute BRICK --join {group}', and ask \
                 that brick's agent"
            ),
            error => error.into(),
        })?;
        let mut end = 0;
        for part in &view.parts {
            // Attachments come one by one while a brick joins, and go one by one while it leaves.
            ensure!(
                part.at == end,
                "the brick does not have all of '{group}' (yet): bytes {end} to {} are missing; see 'rackmem reservation list'",
                part.at
            );
            end += part.size.0;
        }
        Ok(view.parts.iter().map(given).collect())
    }
}

fn given(part: &SharedPart) -> GivenSegment {
    GivenSegment {
        server: part.server.clone(),
        segment: part.segment.0,
        owner: part.token.0,
        first: part.first / PAGE_SIZE as u64,
        pages: part.size.pages(),
    }
}

/// Refuses what begins behind the end.
fn check_offset(memory: &SharedMemory, offset: Bytes) -> anyhow::Result<()> {
    let size = Bytes(memory.size());
    ensure!(offset <= size, "the shared memory has {size}: nothing is at offset {offset}");
    Ok(())
}

fn read(command: &ReadCommand) -> anyhow::Result<ExitCode> {
    let mut memory = command.memory.open()?;
    check_offset(&memory, command.offset)?;
    let mut at = command.offset.0;
    let end = command.size.map_or(memory.size(), |size| memory.size().min(at.saturating_add(size.0)));
    let mut out = io::stdout().lock();
    let mut chunk = vec![0; CHUNK];
    while at < end {
        let len = chunk.len().min(usize::try_from(end - at).unwrap_or(CHUNK));
        let len = memory.read_at(at, &mut chunk[..len])?;
        out.write_all(&chunk[..len])?;
        at += len as u64;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn write(command: &WriteCommand) -> anyhow::Result<ExitCode> {
    let mut memory = command.memory.open()?;
    check_offset(&memory, command.offset)?;
    let mut at = command.offset.0;
    let mut input = io::stdin().lock();
    let mut chunk = Vec::with_capacity(CHUNK);
    loop {
        chunk.clear();
        input.by_ref().take(CHUNK as u64).read_to_end(&mut chunk).context("cannot read standard input")?;
        if chunk.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let len = memory.write_at(at, &chunk)?;
        at += len as u64;
        ensure!(
            len == chunk.len(),
            "the shared memory ends at {}: what came after that was not written",
            Bytes(at)
        );
    }
}
