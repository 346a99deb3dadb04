//! `demo`: rackmem at work on this machine. Redis with four times more data than its local limit, every value checked, a
//! snapshot that loads, and a running Python program that is attached to and let go again.
//!
//! It uses ports and directories of its own and leaves nothing behind, however it ends.

mod live;
mod progress;

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use comfy_table::{Table, presets};
use rackmem_control::TargetStats;
use rackmem_types::Bytes;
use serde::Deserialize;

use self::live::Live;
use self::progress::Step;
use crate::client::redis_data::{BATCH, check, fill};
use crate::client::resp::{Redis, Reply};
use crate::process::{Daemon, Workload, free_port};
use crate::product::{MemoryServer, Product};
use crate::undo;

const POOL: Bytes = Bytes(2 << 30);

/// Bytes of a value, and how many: 256 MiB.
const VALUE: usize = 4096;
const KEYS: u64 = 65536;
const REDIS_LOCAL: Bytes = Bytes(64 << 20);

const CHECKER: &str = include_str!("checker.py");
const CHECKER_SIZE: Bytes = Bytes(128 << 20);
const CHECKER_LOCAL: Bytes = Bytes(32 << 20);
/// How long the program runs attached.
const ATTACHED: Duration = Duration::from_secs(5);

/// A snapshot of 256 MiB takes seconds; minutes mean that it is stuck.
const SNAPSHOT_TIME_MAX: Duration = Duration::from_secs(120);

const TICK: Duration = Duration::from_millis(100);

/// What one program showed.
struct Outcome {
    program: &'static str,
    time: Duration,
    stats: TargetStats,
    checks: u64,
}

/// What the checker reports.
#[derive(Deserialize)]
struct Checks {
    checks: u64,
}

/// Runs it.
pub(crate) fn run() -> Result<()> {
    let product = Product::find()?;
    let server = product.memory_server(POOL, None).context("the memory server")?;
    eprintln!("memory server with {POOL} on {}; Ctrl-C ends everything", server.address());
    eprintln!(
        "to watch in another terminal: RACKMEM_RUNTIME_DIR={} rackmem top",
        product.sockets().display()
    );
    let outcomes = [redis(&product, &server)?, checker(&product, &server)?];
    print(&outcomes);
    Ok(())
}

fn redis(product: &Product, server: &MemoryServer) -> Result<Outcome> {
    let (directory, _undo) = undo::temporary_directory()?;
    let port = free_port()?;
    let start = Instant::now();
    let mut command = product.run(server, REDIS_LOCAL, None, Path::new("redis-server"));
    let daemon = Daemon::spawn(redis_arguments(&mut command, port, &directory))?;
    daemon.wait_for_port(port)?;
    let pid = product.target(server, &daemon)?.pid;
    let live = Live::follow(product, pid);
    let mut redis = Redis::connect(port)?;

    let mut step = Step::begin("Redis: write 256 MiB, 64 MiB local", KEYS)?;
    for first in (0..KEYS).step_by(BATCH as usize) {
        fill(&mut redis, first..first + BATCH, VALUE)?;
        step.advance(BATCH, &live.line());
    }
    step.end("written");
    let mut checks = check_all("Redis: read back, check every value", &mut redis, &live)?;
    snapshot(&mut redis, &live)?;
    checks += check_all("Redis: check again after the snapshot", &mut redis, &live)?;
    let stats = product.stats(pid)?.context("Redis is not in `rackmem ps`")?;
    let time = start.elapsed();
    drop((live, redis, daemon));

    let mut command = Command::new("redis-server");
    let copy = Daemon::spawn(redis_arguments(&mut command, port, &directory))?;
    copy.wait_for_port(port)?;
    checks += check_snapshot(port)?;
    Ok(Outcome { program: "Redis", time, stats, checks })
}

fn redis_arguments<'a>(command: &'a mut Command, port: u16, directory: &Path) -> &'a mut Command {
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(directory)
        .stdout(Stdio::null())
}

fn check_all(name: &'static str, redis: &mut Redis, live: &Live) -> Result<u64> {
    let mut step = Step::begin(name, KEYS)?;
    for first in (0..KEYS).step_by(BATCH as usize) {
        let keys: Vec<u64> = (first..first + BATCH).collect();
        check(redis, &keys, VALUE)?;
        step.advance(BATCH, &live.line());
    }
    step.end(&format!("{KEYS} values right"));
    Ok(KEYS)
}

/// `BGSAVE`, with writes going on meanwhile: the forked child has to see the pages as they were.
fn snapshot(redis: &mut Redis, live: &Live) -> Result<()> {
    let mut step = Step::begin("Redis: BGSAVE, writing meanwhile", KEYS)?;
    let start = Instant::now();
    redis.call(&["BGSAVE"])?;
    let mut rewritten = 0;
    while redis.info("persistence", "rdb_bgsave_in_progress")? != "0" {
        ensure!(start.elapsed() < SNAPSHOT_TIME_MAX, "BGSAVE is not done after {SNAPSHOT_TIME_MAX:?}");
        let first = rewritten % KEYS;
        fill(redis, first..first + BATCH, VALUE)?;
        rewritten += BATCH;
        let saved = redis.info("persistence", "current_save_keys_processed")?.parse()?;
        step.reach(saved, &live.line());
    }
    let status = redis.info("persistence", "rdb_last_bgsave_status")?;
    ensure!(status == "ok", "BGSAVE ended with '{status}'");
    step.end(&format!("saved, {rewritten} values written meanwhile"));
    Ok(())
}

/// Checks every value of a second Redis, without rackmem, that loads the snapshot.
fn check_snapshot(port: u16) -> Result<u64> {
    let mut step = Step::begin("Redis: load the snapshot elsewhere", KEYS)?;
    let mut redis = Redis::connect(port)?;
    let start = Instant::now();
    while redis.info("persistence", "loading")? != "0" {
        ensure!(
            start.elapsed() < SNAPSHOT_TIME_MAX,
            "the snapshot is not loaded after {SNAPSHOT_TIME_MAX:?}"
        );
        thread::sleep(TICK);
    }
    match redis.call(&["DBSIZE"])? {
        Reply::Integer(keys) if keys as u64 == KEYS => {}
        reply => bail!("the snapshot holds {reply:?} keys instead of {KEYS}"),
    }
    for first in (0..KEYS).step_by(BATCH as usize) {
        let keys: Vec<u64> = (first..first + BATCH).collect();
        check(&mut redis, &keys, VALUE)?;
        step.advance(BATCH, "");
    }
    step.end(&format!("{KEYS} values right"));
    Ok(KEYS)
}

fn checker(product: &Product, server: &MemoryServer) -> Result<Outcome> {
    let start = Instant::now();
    let mut command = Command::new("python3");
    command.args(["-c", CHECKER, &CHECKER_SIZE.0.to_string()]);
    let mut program = Workload::spawn(&mut command)?;
    program.wait_ready()?;
    let pid = program.daemon().pid();

    let mut step = Step::begin("Python: attach, 128 MiB, 32 MiB local", ATTACHED.as_millis() as u64)?;
    product.attach(pid, server, CHECKER_LOCAL)?;
    let live = Live::follow(product, pid);
    let attached = Instant::now();
    while attached.elapsed() < ATTACHED {
        thread::sleep(TICK);
        step.advance(TICK.as_millis() as u64, &live.line());
        ensure!(program.daemon().ended()?.is_none(), "the Python program ended while it was attached to");
    }
    let stats = product.stats(pid)?.context("the Python program is not in `rackmem ps`")?;
    step.end(&format!("it stood still for {} µs", stats.attach_pause_us));
    drop(live);

    let step = Step::begin("Python: detach", 1)?;
    product.detach(pid)?;
    thread::sleep(TICK);
    program.lead("end")?;
    let Checks { checks } = program.report()?;
    step.end(&format!("{checks} checks passed"));
    Ok(Outcome { program: "Python", time: start.elapsed(), stats, checks })
}

fn print(outcomes: &[Outcome]) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["program", "time", "limit", "local", "far", "faults", "p50", "p99", "checks passed"]);
    for Outcome { program, time, stats, checks } in outcomes {
        let us = |value: f64| format!("{value:.1} µs");
        table.add_row([
            (*program).to_owned(),
            format!("{:.1} s", time.as_secs_f64()),
            stats.limit.to_string(),
            stats.local.to_string(),
            stats.far.to_string(),
            stats.faults.to_string(),
            us(stats.fault_latency.p50_us),
            us(stats.fault_latency.p99_us),
            checks.to_string(),
        ]);
    }
    println!("{table}");
}
