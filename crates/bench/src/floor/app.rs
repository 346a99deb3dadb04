//! The program of the floor: touches random missing pages and times each touch.

use std::os::fd::AsFd;
use std::process::Stdio;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rackmem_types::{Bytes, PAGE_SIZE};
use rackmem_uapi::anonymous::AnonymousMemory;
use rackmem_uapi::uffd;
use serde::{Deserialize, Serialize};

use crate::histogram::{Latencies, Summary};
use crate::process::{Daemon, on_cpu, own_program};
use crate::random::{Random, permutation};

/// What to touch, and where the other two processes are.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Memory to touch, each page once, in random order.
    #[arg(long, default_value = "256MiB")]
    size: Bytes,
    /// TCP port of the server.
    #[arg(long)]
    port: u16,
    /// CPU of the pager; by default wherever this program may run.
    #[arg(long)]
    pager_cpu: Option<usize>,
}

/// What it saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) faults: Summary,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let memory = AnonymousMemory::map(args.size.0 as usize).context("no memory to touch")?;
    let faults =
        uffd::create(0).context("no userfaultfd: run as root, or set vm.unprivileged_userfaultfd=1")?;
    uffd::api(faults.as_fd(), 0)?;
    uffd::register_missing(faults.as_fd(), memory.address(), memory.len() as u64)?;
    let mut command = on_cpu(args.pager_cpu, own_program()?);
    command
        .args(["floor-pager", "--port", &args.port.to_string()])
        .args(["--base", &memory.address().to_string()])
        .stdin(Stdio::from(faults.try_clone()?))
        .stdout(Stdio::null());
    let _pager = Daemon::spawn(&mut command)?;

    let mut latencies = Latencies::new()?;
    for page in permutation(args.size.pages() as u32, &mut Random::new(1)) {
        let word = &memory.words(page as usize * PAGE_SIZE, 1)[0];
        let start = Instant::now();
        let content = word.load(Relaxed);
        latencies.record(start.elapsed().as_nanos() as u64);
        ensure!(content == super::server::content(page.into()), "page {page} came with a wrong content");
    }
    crate::workload::report(&Report { faults: latencies.summary() })
}
