//! A pipelined load of page reads or writes on a server: how many it answers in a second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rackmem_types::{PAGE_SIZE, PageData};
use serde::{Deserialize, Serialize};

use super::PageStore;
use super::memcached::Memcached;
use super::rackmem::MemoryServer;
use super::resp::Redis;
use crate::process::loopback;
use crate::random::{Random, mix};

/// Pages written at once while the server is filled.
const FILL_BATCH: u32 = 32;

/// What to load, and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// What listens there.
    #[arg(long, value_enum)]
    server: Server,
    /// Its TCP port on this machine.
    #[arg(long)]
    port: u16,
    /// Write instead of read.
    #[arg(long)]
    writes: bool,
    /// Pages to choose from.
    #[arg(long, default_value_t = 16384, value_parser = clap::value_parser!(u32).range(1024..=1 << 20))]
    pages: u32,
    /// Batches in flight.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=16))]
    in_flight: u32,
    /// Requests in one batch.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=256))]
    batch: u32,
    /// Seconds to measure.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Server {
    Redis,
    Memcached,
    Rackmem,
}

/// What was reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) pages: u64,
    pub(crate) per_second: f64,
}

/// Runs it: fills the server, says `ready`, measures after the next line.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut store: Box<dyn PageStore> = match args.server {
        Server::Redis => Box::new(Redis::connect(args.port)?),
        Server::Memcached => Box::new(Memcached::connect(args.port)?),
        Server::Rackmem => Box::new(MemoryServer::connect(loopback(args.port), args.pages, None)?),
    };
    let numbers: Vec<u32> = (0..args.pages).collect();
    for batch in numbers.chunks(FILL_BATCH as usize) {
        store.send_writes(batch, &mut content)?;
        store.take_writes(batch)?;
    }
    crate::workload::rendezvous()?;
    let mut random = Random::new(1);
    let mut batch_of =
        || -> Vec<u32> { (0..args.batch).map(|_| random.below(u64::from(args.pages)) as u32).collect() };
    let send = |store: &mut dyn PageStore, batch: &[u32]| {
        if args.writes { store.send_writes(batch, &mut content) } else { store.send_reads(batch) }
    };
    let mut waiting = VecDeque::new();
    for _ in 0..args.in_flight {
        let batch = batch_of();
        send(store.as_mut(), &batch)?;
        waiting.push_back(batch);
    }
    let (start, limit) = (Instant::now(), Duration::from_secs_f64(args.seconds));
    let mut pages = 0;
    while start.elapsed() < limit {
        let Some(batch) = waiting.pop_front() else { break };
        if args.writes {
            store.take_writes(&batch)?;
        } else {
            store.take_reads(&batch, &mut check)?;
        }
        pages += batch.len() as u64;
        let next = batch_of();
        send(store.as_mut(), &next)?;
        waiting.push_back(next);
    }
    let per_second = pages as f64 / start.elapsed().as_secs_f64();
    crate::workload::report(&Report { pages, per_second })
}

/// Only the head of a page tells it from others: the load must cost the client little, for every server alike.
fn content(page: u32, data: &mut PageData) {
    data[..8].copy_from_slice(&mix(u64::from(page)).to_le_bytes());
    data[8] = 1;
}

fn check(page: u32, data: &[u8]) -> Result<()> {
    let right = data.len() == PAGE_SIZE && data[..8] == mix(u64::from(page)).to_le_bytes();
    ensure!(right, "page {page} does not hold what was written to it");
    Ok(())
}
