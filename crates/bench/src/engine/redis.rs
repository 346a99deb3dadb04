//! Redis with Zipf-distributed GETs: all its memory local, a quarter local under rackmem, a quarter local with remote swap.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rackmem_types::Bytes;

use super::lab::Lab;
use crate::client::redis_data::{BATCH, check, fill};
use crate::client::resp::Redis;
use crate::course::figure::Figure;
use crate::course::samples::Samples;
use crate::histogram::Latencies;
use crate::peer::cgroup::MemoryGroup;
use crate::peer::swap::{SwapArea, surviving_oom};
use crate::process::{Daemon, free_port};
use crate::random::{Random, Zipf};

/// Bytes of a value.
const VALUE: usize = 1024;
/// YCSB's skew.
const THETA: f64 = 0.99;
/// What Redis needs for a key, its entry and its value's slack beside the value itself, roughly; only the number of keys is
/// derived from it.
const OVERHEAD: u64 = 300;
const LOCAL_PERCENT: u64 = 25;

const CASES: [&str; 3] = ["all local", "rackmem", "remote swap"];
const WAYS: [(&str, usize); 2] = [("one by one", 1), ("pipelined by 16", 16)];

/// One round.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    let port = free_port()?;
    {
        let redis = Daemon::spawn(arguments(&mut Command::new("redis-server"), port))?;
        measure(lab, &redis, port, CASES[0], samples)?;
    }
    {
        let server = lab.memory_server(None)?;
        let mut command =
            lab.product()?.run(&server, lab.share(LOCAL_PERCENT), None, std::path::Path::new("redis-server"));
        let redis = Daemon::spawn(arguments(&mut command, port))?;
        measure(lab, &redis, port, CASES[1], samples)?;
    }
    let _area = SwapArea::remote(Bytes(lab.size.0 * 2)).context("remote swap")?;
    surviving_oom(|| {
        let group = MemoryGroup::create(lab.share(LOCAL_PERCENT))?;
        let redis = Daemon::spawn(arguments(&mut group.command(std::path::Path::new("redis-server")), port))?;
        measure(lab, &redis, port, CASES[2], samples)
    })
}

fn arguments(command: &mut Command, port: u16) -> &mut Command {
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .stdout(Stdio::null())
}

fn measure(lab: &Lab, server: &Daemon, port: u16, case: &str, samples: &mut Samples) -> Result<()> {
    server.wait_for_port(port)?;
    let mut redis = Redis::connect(port)?;
    let keys = lab.size.0 / (VALUE as u64 + OVERHEAD);
    for first in (0..keys).step_by(BATCH as usize) {
        fill(&mut redis, first..(first + BATCH).min(keys), VALUE)?;
    }
    let zipf = Zipf::new(keys, THETA);
    let mut random = Random::new(1);
    for (way, depth) in WAYS {
        gets(&mut redis, &zipf, &mut random, depth, lab.warmup)?;
        let (per_second, latencies) = gets(&mut redis, &zipf, &mut random, depth, lab.seconds)?;
        samples.add(format!("redis/{way}/{case}/per second"), per_second);
        samples.add(format!("redis/{way}/{case}/p99 us"), latencies.summary().p99_us);
    }
    Ok(())
}

fn gets(
    redis: &mut Redis,
    zipf: &Zipf,
    random: &mut Random,
    depth: usize,
    seconds: f64,
) -> Result<(f64, Latencies)> {
    let (start, limit) = (Instant::now(), Duration::from_secs_f64(seconds));
    let mut latencies = Latencies::new()?;
    let mut count = 0;
    let mut last = start;
    while last - start < limit {
        let keys: Vec<u64> = (0..depth).map(|_| zipf.key(random)).collect();
        check(redis, &keys, VALUE)?;
        let now = Instant::now();
        latencies.record((now - last).as_nanos() as u64);
        last = now;
        count += depth;
    }
    Ok((count as f64 / start.elapsed().as_secs_f64(), latencies))
}

/// The rows of this experiment; they have no bar.
pub(crate) fn figures(samples: &Samples) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (way, _) in WAYS {
        let name = |case: &str| format!("redis/{way}/{case}/per second");
        let text = |case| samples.median(&name(case)).map_or_else(|| "?".to_owned(), |n| format!("{n:.0}"));
        for peer in ["remote swap", "all local"] {
            let ratio = samples.ratio(&name("rackmem"), &name(peer));
            figures.push(
                Figure::ratio(
                    format!("Redis GET, Zipf, {LOCAL_PERCENT} % local, {way}, against {peer}"),
                    ratio,
                    None,
                )
                .with_detail(format!("{} against {} GET/s", text("rackmem"), text(peer))),
            );
        }
    }
    figures
}
