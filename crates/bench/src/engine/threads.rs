//! Faults per second as the program gets more threads, with eviction all the time.

use anyhow::Result;

use super::lab::Lab;
use crate::course::figure::{Bar, Figure};
use crate::course::samples::Samples;
use crate::process::Workload;
use crate::workload::touch::Report;

const THREADS: [u64; 3] = [1, 2, 4];
const LOCAL_PERCENT: u64 = 25;

/// Reads alone, and half writes: then every second page has to be sent when it leaves.
const WRITES: [u64; 2] = [0, 50];

/// One round.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    for writes in WRITES {
        for threads in THREADS {
            let server = lab.memory_server(None)?;
            let mut command = lab.far(&server, lab.share(LOCAL_PERCENT), None)?;
            command
                .arg("touch")
                .args(["--size", &lab.size.to_string()])
                .args(["--seconds", &lab.seconds.to_string()])
                .args(["--warmup", &lab.warmup.to_string()])
                .args(["--threads", &threads.to_string()])
                .args(["--writes", &writes.to_string()]);
            let report: Report = Workload::spawn(&mut command)?.report()?;
            samples.add(name(writes, threads), report.faulting_per_second);
        }
    }
    Ok(())
}

fn name(writes: u64, threads: u64) -> String {
    format!("threads/{writes} % writes/{threads}/faults per second")
}

/// The rows of this experiment.
pub(crate) fn figures(samples: &Samples) -> Vec<Figure> {
    let mut figures = Vec::new();
    for writes in WRITES {
        for threads in THREADS.into_iter().skip(1) {
            let (many, one) = (name(writes, threads), name(writes, 1));
            let text =
                |name: &str| samples.median(name).map_or_else(|| "?".to_owned(), |n| format!("{n:.0}"));
            let title = format!("faults per second, 1 → {threads} threads, {writes} % writes");
            figures.push(
                Figure::ratio(title, samples.ratio(&many, &one), Some((Bar::AtLeast, 1.0)))
                    .with_detail(format!("{} → {}", text(&one), text(&many))),
            );
        }
    }
    figures
}
