//! Growing a guest against booting another one: how long it takes until the memory is there.

use std::time::Instant;

use anyhow::{Result, ensure};
use guest_probe::Side;
use rackmem_types::Bytes;

use super::brick::{Brick, begin};
use super::lab::Lab;
use crate::course::figure::{Bar, Figure};
use crate::course::samples::Samples;

/// D4.1's argument for scaling up instead of out.
const BOOT_SHARE_MAX: f64 = 0.2;
const SECONDS_MAX: f64 = 1.0;

/// The guest that grows: enough to boot and to manage what comes.
const BASE: Bytes = Bytes(512 << 20);

/// Of the memory that comes, the part that the guest keeps to manage it: 64 bytes a page, and a margin.
const OVERHEAD_SHARE: u64 = 40;

/// How long the guest may take to see its memory.
const PATIENCE_S: u32 = 60;

const GROWN: &str = "resize/grown s";
const BOOTED: &str = "resize/booted s";

/// One round.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    let brick = Brick::start(lab, None, None)?;
    let max = Bytes(BASE.0 + lab.growth.0);
    brick.boot("grows", brick.create("grows", BASE).args(["--memory-max", &max.0.to_string()]))?;
    let mut probe = brick.probe("grows")?;
    let before = probe.info()?.memory.total;
    let wanted = Bytes(before.0 + lab.growth.0 - lab.growth.0 / OVERHEAD_SHARE);

    let start = Instant::now();
    let mut resize = begin(brick.vm().args(["resize", "grows", &max.0.to_string()]))?;
    let total = probe.wait_total(Side::AtLeast, wanted, PATIENCE_S)?.total;
    samples.add(GROWN, start.elapsed().as_secs_f64());
    ensure!(resize.wait()?.success(), "rackmem vm resize failed");
    samples.add("resize/resize command s", start.elapsed().as_secs_f64());
    samples.add("resize/MemTotal grown by MiB", ((total.0 - before.0) >> 20) as f64);

    let boot = brick.boot("another", &mut brick.create("another", lab.growth))?;
    samples.add(BOOTED, boot.as_secs_f64());
    Ok(())
}

/// The rows of this experiment.
pub(crate) fn figures(samples: &Samples) -> Vec<Figure> {
    let text = |name| samples.median(name).map_or_else(|| "?".to_owned(), |s| format!("{s:.2} s"));
    let detail = format!("{} against {}", text(GROWN), text(BOOTED));
    vec![
        Figure::ratio(
            "growing a guest against booting another",
            samples.ratio(GROWN, BOOTED),
            Some((Bar::AtMost, BOOT_SHARE_MAX)),
        )
        .with_detail(detail),
        Figure {
            name: "from `vm resize` to memory in the guest".to_owned(),
            unit: "s",
            measured: samples.median(GROWN),
            bar: Some((Bar::AtMost, SECONDS_MAX)),
            detail: String::new(),
        },
    ]
}
