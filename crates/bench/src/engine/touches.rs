//! Random and sequential touches at 50 % and 25 % local memory: rackmem, remote swap, compressed swap; and what the pager
//! itself needs.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use rackmem_types::Bytes;

use super::lab::Lab;
use crate::course::figure::{Bar, Figure};
use crate::course::samples::Samples;
use crate::peer::cgroup::MemoryGroup;
use crate::peer::swap::{SwapArea, surviving_oom};
use crate::process::Workload;
use crate::product::{pager_memory, resident};
use crate::workload::touch::Report;

const LOCAL_PERCENT: [u64; 2] = [50, 25];

const REMOTE_SWAP_TIMES: f64 = 2.5;
const ZRAM_TIMES: f64 = 0.25;
const SEQUENTIAL_TIMES: f64 = 4.0;

/// What the pager may need: a share of the managed memory, and a fixed part.
const PAGER_SHARE: f64 = 0.006;
const PAGER_FIXED: Bytes = Bytes(32 << 20);

/// What a program has resident beside its managed memory: its file pages and its stacks.
const PROGRAM: Bytes = Bytes(16 << 20);

/// A kind of touches: its name and the arguments of the workload.
type Kind = (&'static str, &'static [&'static str]);
const READS: Kind = ("reads", &["--pattern", "random"]);
const WRITES: Kind = ("half writes", &["--pattern", "random", "--writes", "50"]);
const SEQUENTIAL: Kind = ("sequential", &["--pattern", "sequential"]);

/// One round.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    // Swap is off while rackmem runs and the other way round: neither may help the other.
    {
        let _area = SwapArea::remote(Bytes(lab.size.0 * 2)).context("remote swap")?;
        swap(lab, "remote swap", samples)?;
    }
    {
        let _area = SwapArea::zram(Bytes(lab.size.0 * 2)).context("zram swap")?;
        swap(lab, "zram", samples)?;
    }
    for percent in LOCAL_PERCENT {
        for kind in [READS, WRITES, SEQUENTIAL] {
            rackmem(lab, kind, percent, samples)?;
        }
    }
    Ok(())
}

fn swap(lab: &Lab, peer: &str, samples: &mut Samples) -> Result<()> {
    for percent in LOCAL_PERCENT {
        for kind in [READS, WRITES] {
            let report = surviving_oom(|| {
                let group = MemoryGroup::create(lab.share(percent))?;
                let command = group.command(lab.own());
                let mut workload = Workload::spawn(arguments(lab, kind, command).arg("--wait"))?;
                workload.wait_ready()?;
                workload.lead("go")?;
                workload.report()
            })?;
            keep(samples, peer, kind, percent, &report);
        }
    }
    Ok(())
}

fn rackmem(lab: &Lab, kind: Kind, percent: u64, samples: &mut Samples) -> Result<()> {
    let server = lab.memory_server(None)?;
    let command = lab.far(&server, lab.share(percent), None)?;
    let mut workload = Workload::spawn(arguments(lab, kind, command).arg("--wait"))?;
    workload.wait_ready()?;
    let target = lab.product()?.target(&server, workload.daemon())?;
    samples.add("pager/memory", pager_memory(target.pager_pid)?.0 as f64);
    samples.add("pager/managed", target.managed.0 as f64);
    let (resident, limit) = (resident(target.pid)?, lab.share(percent));
    let allowed = Bytes(limit.0 + limit.0 / 8 + PROGRAM.0);
    ensure!(resident <= allowed, "{resident} of the program are resident, its local limit is {limit}");
    samples.add(format!("{}/resident MiB", name("rackmem", kind, percent)), (resident.0 >> 20) as f64);
    workload.lead("go")?;
    keep(samples, "rackmem", kind, percent, &workload.report()?);
    Ok(())
}

fn arguments(lab: &Lab, kind: Kind, mut command: Command) -> Command {
    command
        .arg("touch")
        .args(["--size", &lab.size.to_string()])
        .args(["--seconds", &lab.seconds.to_string()])
        .args(["--warmup", &lab.warmup.to_string()])
        .args(kind.1);
    command
}

fn keep(samples: &mut Samples, who: &str, kind: Kind, percent: u64, report: &Report) {
    samples.add(format!("{}/per second", name(who, kind, percent)), report.per_second);
    samples.add(format!("{}/faulting p50 us", name(who, kind, percent)), report.faulting.p50_us);
    samples.add(format!("{}/faulting p99 us", name(who, kind, percent)), report.faulting.p99_us);
}

fn name(who: &str, kind: Kind, percent: u64) -> String {
    format!("touch/{} {percent} %/{who}", kind.0)
}

/// The rows of these experiments.
pub(crate) fn figures(samples: &Samples) -> Vec<Figure> {
    let per_second = |who, kind, percent| format!("{}/per second", name(who, kind, percent));
    let mut figures = Vec::new();
    for kind in [READS, WRITES] {
        for (peer, times) in [("remote swap", REMOTE_SWAP_TIMES), ("zram", ZRAM_TIMES)] {
            for percent in LOCAL_PERCENT {
                let (ours, theirs) = (per_second("rackmem", kind, percent), per_second(peer, kind, percent));
                let title = format!("random {}, {percent} % local, against {peer}", kind.0);
                figures.push(
                    Figure::ratio(title, samples.ratio(&ours, &theirs), Some((Bar::AtLeast, times)))
                        .with_detail(sides(samples, &ours, &theirs)),
                );
            }
        }
    }
    for percent in LOCAL_PERCENT {
        let (fast, slow) =
            (per_second("rackmem", SEQUENTIAL, percent), per_second("rackmem", READS, percent));
        let title = format!("sequential against random reads, {percent} % local");
        figures.push(
            Figure::ratio(title, samples.ratio(&fast, &slow), Some((Bar::AtLeast, SEQUENTIAL_TIMES)))
                .with_detail(sides(samples, &fast, &slow)),
        );
    }
    figures.push(pager(samples));
    figures
}

fn pager(samples: &Samples) -> Figure {
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let managed = samples.median("pager/managed");
    let allowed = managed.unwrap_or_default() * PAGER_SHARE + PAGER_FIXED.0 as f64;
    Figure {
        name: "pager memory".to_owned(),
        unit: "MiB",
        measured: samples.median("pager/memory").map(mib),
        bar: Some((Bar::AtMost, mib(allowed))),
        detail: managed.map_or_else(String::new, |bytes| format!("for {:.0} MiB managed", mib(bytes))),
    }
}

fn sides(samples: &Samples, one: &str, other: &str) -> String {
    let text = |name| samples.median(name).map_or_else(|| "?".to_owned(), |value| format!("{value:.0}"));
    format!("{} against {} touches/s", text(one), text(other))
}
