//! A guest's random reads with a quarter of its memory local: rackmem, and the same agent and QEMU in a control group on remote swap.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use guest_probe::Pattern;
use rackmem_types::Bytes;

use super::brick::Brick;
use super::lab::Lab;
use crate::course::figure::{Bar, Figure};
use crate::course::samples::Samples;
use crate::peer::cgroup::MemoryGroup;
use crate::peer::swap::{SwapArea, surviving_oom};
use crate::undo;

const TIMES: f64 = 2.5;

/// Of the guest's memory.
const LOCAL_PARTS: u64 = 4;

/// Of the guest's memory, what its probe fills and reads: the kernel and the probe need the rest.
const FILLED_PERCENT: u64 = 70;

/// Far memory beyond the guest's: pages of QEMU itself travel too.
const SPARE: Bytes = Bytes(1 << 30);

const SEED: u64 = 1;

/// One round.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    let local = Bytes(lab.memory.0 / LOCAL_PARTS);
    {
        let _area = SwapArea::remote(Bytes(lab.memory.0 + SPARE.0)).context("remote swap")?;
        surviving_oom(|| {
            let group = MemoryGroup::create(local)?;
            let (directory, _undo) = undo::temporary_directory()?;
            let qemu = qemu_in(&group, &directory)?;
            let brick = Brick::start(lab, Some(qemu), None)?;
            measure(lab, &brick, &[], "remote swap", samples)
        })?;
    }
    let server = lab.product.memory_server(Bytes(lab.memory.0 + SPARE.0), None)?;
    let brick = Brick::start(lab, None, Some(&server))?;
    measure(lab, &brick, &["--local", &local.0.to_string()], "rackmem", samples)
}

/// A program that is QEMU in the control group: the agent starts it as it starts QEMU.
fn qemu_in(group: &MemoryGroup, directory: &Path) -> Result<PathBuf> {
    let path = directory.join("qemu-in-group");
    let members = group.members();
    fs::write(
        &path,
        format!("#!/bin/sh\necho $$ > {}\nexec qemu-system-x86_64 \"$@\"\n", members.display()),
    )?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Ok(path)
}

fn measure(lab: &Lab, brick: &Brick<'_>, options: &[&str], who: &str, samples: &mut Samples) -> Result<()> {
    brick.boot("reads", brick.create("reads", lab.memory).args(options))?;
    let mut probe = brick.probe("reads")?;
    let filled = Bytes::from_pages(lab.memory.pages() * FILLED_PERCENT / 100);
    probe.fill(SEED, filled)?;
    let [before, measured] = lab.reads;
    probe.touch(Pattern::Random, before, 0)?;
    let touched = probe.touch(Pattern::Random, measured, 0)?;
    samples.add(per_second(who), touched.per_second as f64);
    samples.add(format!("reads/{who}/longest ms"), touched.longest_us as f64 / 1000.0);
    Ok(())
}

fn per_second(who: &str) -> String {
    format!("reads/{who}/per second")
}

/// The rows of this experiment.
pub(crate) fn figures(samples: &Samples) -> Vec<Figure> {
    let (ours, theirs) = (per_second("rackmem"), per_second("remote swap"));
    let text = |name| samples.median(name).map_or_else(|| "?".to_owned(), |n| format!("{n:.0}"));
    vec![
        Figure::ratio(
            "a guest's random reads, 25 % local, against remote swap",
            samples.ratio(&ours, &theirs),
            Some((Bar::AtLeast, TIMES)),
        )
        .with_detail(format!("{} against {} reads/s", text(&ours), text(&theirs))),
    ]
}
