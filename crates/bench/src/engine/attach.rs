//! How long a program stands still while rackmem attaches to it: what the pager says, and what the program itself sees.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rackmem_types::Bytes;

use super::lab::Lab;
use crate::course::figure::{Bar, Figure};
use crate::course::samples::Samples;
use crate::process::Workload;
use crate::workload::spin::Report;

const PAUSE_MS_MAX: f64 = 5.0;

/// The size of the smaller target.
const SMALL: Bytes = Bytes(64 << 20);

/// Local memory beyond the target's size: the pause is measured, not the eviction after it.
const ROOM: Bytes = Bytes(256 << 20);

/// Before and after the attach, so that all of it lies between `go` and `end`.
const MARGIN: Duration = Duration::from_millis(200);

/// How long the same program is watched without an attach.
const UNDISTURBED: Duration = Duration::from_millis(500);

/// One round.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    for (label, size) in [("small", SMALL), ("large", lab.large_target)] {
        let product = lab.product()?;
        let server = product.memory_server(Bytes(size.0 + ROOM.0), None)?;
        let arguments = ["spin", "--size", &size.to_string()];

        let mut alone = Workload::spawn(lab.native(None).args(arguments))?;
        alone.wait_ready()?;
        alone.lead("go")?;
        thread::sleep(UNDISTURBED);
        alone.lead("end")?;
        let alone: Report = alone.report()?;

        let mut target = Workload::spawn(lab.native(None).args(arguments))?;
        let pid = target.daemon().pid();
        target.wait_ready()?;
        target.lead("go")?;
        thread::sleep(MARGIN);
        product.attach(pid, &server, Bytes(size.0 + ROOM.0))?;
        thread::sleep(MARGIN);
        let stats = product.stats(pid)?.context("the target is not in `rackmem ps`")?;
        target.lead("end")?;
        let seen: Report = target.report()?;

        samples.add(format!("attach/{label}/size MiB"), (size.0 >> 20) as f64);
        samples.add(format!("attach/{label}/pause ms, pager"), stats.attach_pause_us as f64 / 1000.0);
        samples.add(format!("attach/{label}/pause ms, target"), seen.gap_us_max / 1000.0);
        samples.add(format!("attach/{label}/gap ms, undisturbed"), alone.gap_us_max / 1000.0);
    }
    Ok(())
}

/// The rows of this experiment.
pub(crate) fn figures(samples: &Samples) -> Vec<Figure> {
    let mut figures = Vec::new();
    for label in ["small", "large"] {
        let get = |what: &str| samples.median(&format!("attach/{label}/{what}"));
        let size = get("size MiB").map_or_else(|| label.to_owned(), |mib| format!("{mib:.0} MiB"));
        let undisturbed = get("gap ms, undisturbed");
        for from in ["pager", "target"] {
            figures.push(Figure {
                name: format!("attach pause, {size}, seen by the {from}"),
                unit: "ms",
                measured: get(&format!("pause ms, {from}")),
                bar: Some((Bar::AtMost, PAUSE_MS_MAX)),
                detail: match undisturbed {
                    Some(gap) if from == "target" => format!("{gap:.2} ms without an attach"),
                    _ => String::new(),
                },
            });
        }
    }
    figures
}
