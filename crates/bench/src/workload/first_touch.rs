//! Maps fresh memory and writes one word to each of its pages: what `malloc` of a large buffer costs a program.

use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rackmem_types::{Bytes, PAGE_SIZE};
use rackmem_uapi::anonymous::AnonymousMemory;
use serde::{Deserialize, Serialize};

/// What to map.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Memory to map each time.
    #[arg(long, default_value = "256MiB")]
    size: Bytes,
    /// How often.
    #[arg(long, default_value_t = 3)]
    times: u32,
    /// Milliseconds between mapping and touching, in which whoever manages this program's memory can find the mapping.
    #[arg(long, default_value_t = 300)]
    settle_ms: u64,
}

/// What it saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Nanoseconds per page, one for each time.
    pub(crate) ns_per_page: Vec<f64>,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut ns_per_page = Vec::new();
    for time in 1..=u64::from(args.times) {
        let memory = AnonymousMemory::map(args.size.0 as usize).context("no memory to touch")?;
        thread::sleep(Duration::from_millis(args.settle_ms));
        let pages = args.size.pages();
        let word = |page: u64| &memory.words(page as usize * PAGE_SIZE, 1)[0];
        let start = Instant::now();
        for page in 0..pages {
            word(page).store(page ^ time, Relaxed);
        }
        ns_per_page.push(start.elapsed().as_nanos() as f64 / pages as f64);
        if let Some(page) = (0..pages).find(|&page| word(page).load(Relaxed) != page ^ time) {
            bail!("page {page} does not hold what was written to it");
        }
    }
    super::report(&Report { ns_per_page })
}
