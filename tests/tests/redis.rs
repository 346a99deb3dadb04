//! Redis with many times more data than local memory: every value is checked, and its dump is what memory was when
//! `BGSAVE` forked. Needs root, redis-server and redis-benchmark.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rackmem_e2e::{Process, Rack, Redis, free_address, required};

/// Values checked, and bytes in each: about 100 MiB with Redis's own overhead.
const VALUES: u64 = 80_000;
const VALUE_BYTES: usize = 1_100;
const MEMORY_MIB: u64 = 100;

/// Commands sent before their answers are read.
const PIPELINE: u64 = 500;

const LIMIT: Duration = Duration::from_secs(240);

fn value(number: u64, generation: u64) -> Vec<u8> {
    let mut state = number << 8 | generation;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    let words = std::iter::repeat_with(next).flat_map(u32::to_le_bytes);
    words.take(VALUE_BYTES + number as usize % 50).collect()
}

fn key(number: u64) -> Vec<u8> {
    format!("value:{number}").into_bytes()
}

fn pipelined(numbers: impl Iterator<Item = u64>, mut each: impl FnMut(&[u64])) {
    let numbers: Vec<_> = numbers.collect();
    numbers.chunks(PIPELINE as usize).for_each(&mut each);
}

fn store(redis: &mut Redis, numbers: impl Iterator<Item = u64>, generation: u64) {
    pipelined(numbers, |chunk| {
        chunk.iter().for_each(|number| redis.send(&[b"SET", &key(*number), &value(*number, generation)]));
        chunk.iter().for_each(|_| assert_eq!(redis.answer(), b"OK"));
    });
}

#[track_caller]
fn check(redis: &mut Redis, numbers: impl Iterator<Item = u64>, generation: u64) {
    pipelined(numbers, |chunk| {
        chunk.iter().for_each(|number| redis.send(&[b"GET", &key(*number)]));
        for number in chunk {
            let found = redis.answer();
            assert!(found == value(*number, generation), "value {number} has {} wrong bytes", found.len());
        }
    });
}

/// A Redis server's command line; it keeps its dump in `directory`.
fn server(directory: &std::path::Path, address: &str) -> Vec<std::ffi::OsString> {
    let port = address.rsplit(':').next().unwrap_or_default();
    let mut line = vec![required("redis-server").into(), "--port".into(), port.into(), "--dir".into()];
    line.push(directory.into());
    line.extend(["--save", "", "--bind", "127.0.0.1", "--logfile", "redis.log"].map(Into::into));
    line
}

fn benchmark(redis: &Redis) {
    let port = redis.address().rsplit(':').next().unwrap_or_default().to_owned();
    let mut command = Command::new(required("redis-benchmark"));
    command.args(["-p", &port, "-n", "30000", "-r", "10000", "-d", "400", "-c", "20", "-P", "8", "-q", "-t"]);
    command.arg("set,get,incr,lpush,hset").stdin(Stdio::null());
    Process::start(&mut command, LIMIT).finish().expect_success("redis-benchmark");
}

/// Has `redis` dump itself while the values are overwritten, and answers when the dump is complete.
fn dump_while_overwriting(redis: &mut Redis) {
    let answer = redis.ask(&[b"BGSAVE"]);
    assert_eq!(answer, b"Background saving started");
    store(redis, (0..VALUES).step_by(2), 1);
    let started = Instant::now();
    while redis.info("rdb_bgsave_in_progress") != "0" {
        assert!(started.elapsed() < Duration::from_secs(120), "BGSAVE does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(redis.info("rdb_last_bgsave_status"), "ok");
}

fn check_redis(percent: u64) {
    let rack = Rack::start();
    let address = free_address();
    let line = server(rack.directory(), &address);
    let mut command = rack.run(MEMORY_MIB * percent / 100, &[], &line);
    let mut redis = Redis::start(&mut command, &address, LIMIT);
    store(&mut redis, 0..VALUES, 0);
    let used: u64 = redis.info("used_memory").parse().unwrap();
    assert!(used >= MEMORY_MIB << 20, "Redis uses {used} bytes only");
    benchmark(&redis);
    check(&mut redis, 0..VALUES, 0);
    check(&mut redis, (0..VALUES).rev().step_by(7), 0);

    dump_while_overwriting(&mut redis);
    check(&mut redis, (0..VALUES).step_by(2), 1);
    check(&mut redis, (1..VALUES).step_by(2), 0);

    // A second server without rackmem reads what the forked child has written.
    let address = free_address();
    let line = server(rack.directory(), &address);
    let mut second =
        Redis::start(Command::new(&line[0]).args(&line[1..]).stdin(Stdio::null()), &address, LIMIT);
    check(&mut second, 0..VALUES, 0);

    redis.send(&[b"SHUTDOWN", b"NOSAVE"]);
    let ended = redis.into_process().finish();
    assert!(ended.status.success(), "redis-server ended with {}\n{}", ended.status, ended.stderr);
}

#[test]
fn redis_with_half_of_its_memory_local() {
    check_redis(50);
}

#[test]
fn redis_with_a_quarter_of_its_memory_local() {
    check_redis(25);
}

#[test]
fn redis_with_a_tenth_of_its_memory_local() {
    check_redis(10);
}
