//! Touches pages of its memory, at random or in order, reads and writes, and checks what they hold.
//!
//! Each thread owns a contiguous part of the memory. The version of every page is kept beside it.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rackmem_types::{Bytes, PAGE_SIZE};
use rackmem_uapi::anonymous::AnonymousMemory;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

use super::content;
use crate::histogram::{Latencies, Summary};
use crate::random::{Random, permutation};

/// A touch that takes longer waited for a page: nothing else in the loop takes a tenth of it, and the fastest way to get a
/// page back (compressed swap) takes more.
pub(crate) const FAULTING_NS: u64 = 3000;

/// Clock reads are the dearest part of a resident touch, so the end of the time is looked for only so often.
const TOUCHES_BETWEEN_CHECKS: u64 = 64;

/// What to touch.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Memory to touch.
    #[arg(long, default_value = "256MiB")]
    size: Bytes,
    /// Order of the touches.
    #[arg(long, value_enum, default_value_t = Pattern::Random)]
    pattern: Pattern,
    /// How many of a hundred touches write the whole page; the others read and check.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100))]
    writes: u64,
    /// Threads, each with its own part of the memory.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    threads: u64,
    /// Seconds to measure.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Seconds of the same touches before.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Seed of the random order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run on this CPU alone.
    #[arg(long)]
    cpu: Option<usize>,
    /// After the memory is filled and warm, say `ready` and wait for a line.
    #[arg(long)]
    wait: bool,
}

/// Order of the touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pattern {
    /// Uniformly random pages.
    Random,
    /// One page after the other, over and over.
    Sequential,
    /// Every page exactly once, in random order.
    Once,
}

/// What a touch run saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) touches: u64,
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// All touches.
    pub(crate) all: Summary,
    /// Touches that waited for a page.
    pub(crate) faulting: Summary,
    pub(crate) faulting_per_second: f64,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(cpu) = args.cpu {
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        sched_setaffinity(None, &cpus).with_context(|| format!("cannot run on CPU {cpu}"))?;
    }
    let memory = AnonymousMemory::map(args.size.0 as usize).context("no memory to touch")?;
    let pages = args.size.pages();
    if pages < args.threads * 2 {
        bail!("{} is too little memory for {} threads", args.size, args.threads);
    }
    let barrier = Barrier::new(args.threads as usize + 1);
    let parts: Vec<_> = (0..args.threads)
        .map(|thread| {
            (pages * thread / args.threads, pages * (thread + 1) / args.threads, args.seed * 64 + thread)
        })
        .collect();
    let (results, seconds) = thread::scope(|scope| {
        let workers: Vec<_> = parts
            .into_iter()
            .map(|(first, end, seed)| {
                let (memory, barrier) = (&memory, &barrier);
                scope.spawn(move || {
                    let worker = Worker::prepare(memory, first, end, args, seed);
                    // A worker that failed keeps the rendezvous too: the others wait for it.
                    barrier.wait();
                    barrier.wait();
                    let mut worker = worker?;
                    worker.touch(args.pattern, Duration::from_secs_f64(args.seconds))?;
                    anyhow::Ok((worker.all, worker.faulting))
                })
            })
            .collect();
        barrier.wait();
        let led = if args.wait { super::rendezvous() } else { Ok(()) };
        let start = Instant::now();
        barrier.wait();
        let results: Vec<_> = workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a thread panicked")))
            .collect();
        let seconds = start.elapsed().as_secs_f64();
        led.map(|()| (results, seconds))
    })?;
    let (mut all, mut faulting) = (Latencies::new()?, Latencies::new()?);
    for result in results {
        let (some, slow) = result??;
        all.add(&some)?;
        faulting.add(&slow)?;
    }
    let (all, faulting) = (all.summary(), faulting.summary());
    super::report(&Report {
        touches: all.count,
        seconds,
        per_second: all.count as f64 / seconds,
        all,
        faulting,
        faulting_per_second: faulting.count as f64 / seconds,
    })
}

struct Worker<'a> {
    memory: &'a AnonymousMemory,
    first: u64,
    versions: Vec<u32>,
    writes: u64,
    random: Random,
    all: Latencies,
    faulting: Latencies,
}

impl<'a> Worker<'a> {
    /// Fills the pages and warms them up.
    fn prepare(memory: &'a AnonymousMemory, first: u64, end: u64, args: &Args, seed: u64) -> Result<Self> {
        let mut worker = Self {
            memory,
            first,
            versions: vec![0; (end - first) as usize],
            writes: args.writes,
            random: Random::new(seed),
            all: Latencies::new()?,
            faulting: Latencies::new()?,
        };
        for page in first..end {
            content::fill(worker.words(page), page, 0);
        }
        if args.pattern != Pattern::Once {
            worker.touch(args.pattern, Duration::from_secs_f64(args.warmup))?;
        }
        (worker.all, worker.faulting) = (Latencies::new()?, Latencies::new()?);
        Ok(worker)
    }

    fn words(&self, page: u64) -> &'a [std::sync::atomic::AtomicU64] {
        self.memory.words(page as usize * PAGE_SIZE, content::WORDS)
    }

    fn touch(&mut self, pattern: Pattern, time: Duration) -> Result<()> {
        let count = self.versions.len() as u64;
        let order =
            if pattern == Pattern::Once { permutation(count as u32, &mut self.random) } else { Vec::new() };
        let start = Instant::now();
        let mut last = start;
        for i in 0.. {
            let index = match pattern {
                Pattern::Random => self.random.below(count),
                Pattern::Sequential => i % count,
                Pattern::Once if i == count => break,
                Pattern::Once => u64::from(order[i as usize]),
            };
            self.touch_page(index)?;
            let now = Instant::now();
            let ns = (now - last).as_nanos() as u64;
            last = now;
            self.all.record(ns);
            if ns > FAULTING_NS {
                self.faulting.record(ns);
            }
            if pattern != Pattern::Once && i % TOUCHES_BETWEEN_CHECKS == 0 && now - start >= time {
                break;
            }
        }
        Ok(())
    }

    fn touch_page(&mut self, index: u64) -> Result<()> {
        let page = self.first + index;
        let dice = self.random.next();
        let version = self.versions[index as usize];
        if !content::check(self.words(page), page, version, dice) {
            bail!("page {page} does not hold what was written to it (version {version})");
        }
        if self.writes > 0 && dice % 100 < self.writes {
            self.versions[index as usize] = version + 1;
            content::fill(self.words(page), page, version + 1);
        }
        Ok(())
    }
}
