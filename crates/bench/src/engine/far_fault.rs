//! The latency of one far fault, against the floor with the same placement on the CPUs; and what eviction adds to it.

use anyhow::{Result, ensure};
use rackmem_types::Bytes;

use super::lab::Lab;
use crate::course::figure::{Bar, Figure};
use crate::course::samples::Samples;
use crate::floor::app::Report as FloorReport;
use crate::process::{Daemon, Workload, free_port};
use crate::workload::touch::Report;

const FLOOR_TIMES: f64 = 1.25;
const EVICTION_TIMES: f64 = 1.10;

const LOCAL_PERCENT: u64 = 25;

/// Where the program, the pager and the server run.
#[derive(Clone, Copy, Debug)]
struct Placement {
    name: &'static str,
    program: Option<usize>,
    others: Option<usize>,
}

const PLACEMENTS: [Placement; 2] = [
    Placement { name: "one CPU", program: Some(0), others: Some(0) },
    Placement { name: "two CPUs", program: Some(0), others: Some(1) },
];
const ANYWHERE: Placement = Placement { name: "anywhere", program: None, others: None };

/// One round.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    for placement in PLACEMENTS {
        let floor = floor(lab, placement)?;
        samples.add(format!("far fault/{}/floor p50 us", placement.name), floor.faults.p50_us);
        samples.add(format!("far fault/{}/floor p99 us", placement.name), floor.faults.p99_us);
        let far = once(lab, placement, 0, false)?;
        samples.add(format!("far fault/{}/rackmem p50 us", placement.name), far.faulting.p50_us);
        samples.add(format!("far fault/{}/rackmem p99 us", placement.name), far.faulting.p99_us);
    }
    for (name, evicting) in [("without", false), ("with", true)] {
        let far = once(lab, ANYWHERE, 50, evicting)?;
        samples.add(format!("far fault/half writes, {name} eviction/rackmem p50 us"), far.faulting.p50_us);
    }
    Ok(())
}

fn floor(lab: &Lab, placement: Placement) -> Result<FloorReport> {
    let port = free_port()?;
    let size = lab.size.to_string();
    let server = Daemon::spawn(
        lab.native(placement.others)
            .args(["floor-server", "--port", &port.to_string()])
            .args(["--size", &size]),
    )?;
    server.wait_for_port(port)?;
    let mut program = lab.native(placement.program);
    program.args(["floor", "--port", &port.to_string(), "--size", &size]);
    if let Some(cpu) = placement.others {
        program.args(["--pager-cpu", &cpu.to_string()]);
    }
    Workload::spawn(&mut program)?.report()
}

/// Touches every page once in random order: most are far, and no prefetch can guess the next one. Without eviction the
/// limit is raised before, so that all of them can stay.
fn once(lab: &Lab, placement: Placement, writes: u64, evicting: bool) -> Result<Report> {
    let server = lab.memory_server(placement.others)?;
    // The pager inherits the placement of `rackmem run`; the program moves itself.
    let mut command = lab.far(&server, lab.share(LOCAL_PERCENT), placement.others)?;
    command
        .args(["touch", "--pattern", "once", "--wait"])
        .args(["--size", &lab.size.to_string()])
        .args(["--writes", &writes.to_string()]);
    if let Some(cpu) = placement.program {
        command.args(["--cpu", &cpu.to_string()]);
    }
    let mut workload = Workload::spawn(&mut command)?;
    workload.wait_ready()?;
    if !evicting {
        let target = lab.product()?.target(&server, workload.daemon())?;
        lab.product()?.limit(target.pid, Bytes(lab.size.0 * 2))?;
    }
    workload.lead("go")?;
    let report: Report = workload.report()?;
    // Three quarters of the pages should be far; where most are not, the figure would be about something else.
    let (waited, all) = (report.faulting.count, report.touches);
    ensure!(waited > all / 2, "only {waited} of {all} touches waited for a page: the pages were not far");
    Ok(report)
}

/// The rows of these experiments.
pub(crate) fn figures(samples: &Samples) -> Vec<Figure> {
    let text = |name: &str| samples.median(name).map_or_else(|| "?".to_owned(), |us| format!("{us:.1}"));
    let mut figures: Vec<Figure> = PLACEMENTS
        .iter()
        .map(|Placement { name, .. }| {
            let ours = format!("far fault/{name}/rackmem p50 us");
            let floor = format!("far fault/{name}/floor p50 us");
            let bar = Some((Bar::AtMost, FLOOR_TIMES));
            Figure::ratio(
                format!("far fault p50 against the floor, {name}"),
                samples.ratio(&ours, &floor),
                bar,
            )
            .with_detail(format!("{} against {} µs", text(&ours), text(&floor)))
        })
        .collect();
    let with = "far fault/half writes, with eviction/rackmem p50 us";
    let without = "far fault/half writes, without eviction/rackmem p50 us";
    let bar = Some((Bar::AtMost, EVICTION_TIMES));
    figures.push(
        Figure::ratio(
            "far fault p50, half writes, with against without eviction",
            samples.ratio(with, without),
            bar,
        )
        .with_detail(format!("{} against {} µs", text(with), text(without))),
    );
    figures
}
