//! Reads the clock and touches its memory without a pause, and reports the longest time in which it made no progress: how
//! long a program stands still, seen from inside.

use std::io::BufRead;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rackmem_types::{Bytes, PAGE_SIZE};
use rackmem_uapi::anonymous::AnonymousMemory;
use serde::{Deserialize, Serialize};

use super::content;
use crate::random::Random;

/// What to touch.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Memory of the program.
    #[arg(long, default_value = "64MiB")]
    size: Bytes,
}

/// What it saw between the first and the second line of its input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Longest time without progress, in microseconds.
    pub(crate) gap_us_max: f64,
    pub(crate) touches: u64,
}

/// Runs it: `go` starts the measurement, `end` ends it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let memory = AnonymousMemory::map(args.size.0 as usize).context("no memory to touch")?;
    let pages = args.size.pages();
    let words = |page: u64| memory.words(page as usize * PAGE_SIZE, content::WORDS);
    for page in 0..pages {
        content::fill(words(page), page, 0);
    }
    super::rendezvous()?;
    let ended = AtomicBool::new(false);
    let touches = AtomicU64::new(0);
    let gap_ns = thread::scope(|scope| {
        // The main thread spins, because it is the one that an attach stops.
        scope.spawn(|| {
            let _ = std::io::stdin().lock().read_line(&mut String::new());
            ended.store(true, Relaxed);
        });
        let mut random = Random::new(1);
        let (mut last, mut gap_ns) = (Instant::now(), 0);
        while !ended.load(Relaxed) {
            let page = random.below(pages);
            if !content::check(words(page), page, 0, random.next()) {
                ended.store(true, Relaxed);
                bail!("page {page} does not hold what was written to it");
            }
            let now = Instant::now();
            gap_ns = gap_ns.max((now - last).as_nanos() as u64);
            last = now;
            touches.fetch_add(1, Relaxed);
        }
        Ok(gap_ns)
    })?;
    super::report(&Report { gap_us_max: gap_ns as f64 / 1000.0, touches: touches.into_inner() })
}
