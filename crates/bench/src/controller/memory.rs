//! What the controller needs of memory with 10,000 bricks, while they get 100,000 reservations.

use std::fs;

use anyhow::{Context, Result};

use super::fleet::Fleet;
use super::lab::{LARGE, Lab};
use super::load::{block_on, reserve};
use crate::course::figure::{Bar, Figure};
use crate::course::samples::Samples;
use crate::product::resident;

const MIB_MAX: f64 = 512.0;

const PEAK: &str = "memory/peak MiB";

/// One round.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    let fleet = Fleet::start(LARGE)?;
    let running = fleet.controller(lab, &fleet.state("memory"))?;
    let pid = running.daemon.pid();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    block_on(async {
        let client = running.client().await?;
        samples.add("memory/bricks alone MiB", mib(resident(pid)?.0));
        let start = std::time::Instant::now();
        let count = lab.scaled(LARGE.reservations);
        reserve(&client, LARGE.computes(), count, true).await?;
        samples.add("memory/reservations per s", count as f64 / start.elapsed().as_secs_f64());
        Ok(())
    })?;
    samples.add("memory/at the end MiB", mib(resident(pid)?.0));
    samples.add(PEAK, mib(peak(pid)?));
    Ok(())
}

/// The most memory that the process ever had.
fn peak(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a process without memory")?;
    Ok(kib.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// The rows of this experiment.
pub(crate) fn figures(samples: &Samples) -> Vec<Figure> {
    vec![Figure {
        name: "controller's memory, 10000 bricks, 100000 reservations".to_owned(),
        unit: "MiB",
        measured: samples.spread(PEAK).map(|peak| peak.max),
        bar: Some((Bar::AtMost, MIB_MAX)),
        detail: "the most that it ever was".to_owned(),
    }]
}
