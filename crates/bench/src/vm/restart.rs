//! The agent is killed and started again: how long until it has found all machines, three with a guest and far memory, then fifty more that
//! idle: real machines all of them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rackmem_types::Bytes;

use super::brick::{Brick, Vm};
use super::lab::Lab;
use crate::course::figure::{Bar, Figure};
use crate::course::samples::Samples;
use crate::process::call;
use crate::undo;

const SECONDS_MAX: f64 = 1.0;

/// Machines with a guest and far memory.
const GUESTS: usize = 3;

/// Machines beside them whose processor is halted.
const IDLE: usize = 50;

/// Memory of each guest, and how much of it is local: each has a pager that has to be found too.
const MEMORY: Bytes = Bytes(256 << 20);
const LOCAL: Bytes = Bytes(192 << 20);

/// Memory of each that idles.
const IDLE_MEMORY: Bytes = Bytes(64 << 20);

/// Far memory for the guests.
const FAR: Bytes = Bytes(4 << 30);

/// What is on the disk of a machine that idles: 16-bit code that lets interrupts come, halts, and halts again after each.
const HALT: [u8; 4] = [0xfb, 0xf4, 0xeb, 0xfd];

/// One round.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    let server = lab.product.memory_server(FAR, None)?;
    let mut brick = Brick::start(lab, None, Some(&server))?;
    for number in 0..GUESTS {
        let name = format!("guest{number}");
        brick.boot(&name, brick.create(&name, MEMORY).args(["--local", &LOCAL.0.to_string()]))?;
    }
    samples.add("restart/guests s", restart(&mut brick, GUESTS)?);
    let (disks, _directory) = undo::temporary_directory()?;
    for number in 0..IDLE {
        let disk = disks.join(format!("{number}.raw"));
        halting_disk(&disk)?;
        let memory = IDLE_MEMORY.0.to_string();
        let name = format!("idle{number}");
        call(brick.vm().args(["create", &name, "--memory", &memory, "--vcpus", "1", "--disk"]).arg(&disk))?;
    }
    samples.add("restart/all s", restart(&mut brick, GUESTS + IDLE)?);
    Ok(())
}

/// How long it takes, in seconds, until every machine is found running in the process in which it ran before.
fn restart(brick: &mut Brick<'_>, machines: usize) -> Result<f64> {
    let before = running(&brick.list()?);
    ensure!(before.len() == machines, "{} of {machines} machines run", before.len());
    Ok(brick.agent_restart(|vms| running(vms) == before)?.as_secs_f64())
}

/// The processes of the machines that run.
fn running(vms: &[Vm]) -> Vec<u32> {
    let running = vms.iter().filter(|vm| vm.state == "running");
    let mut pids: Vec<u32> = running.filter_map(|vm| vm.pid).collect();
    pids.sort_unstable();
    pids
}

/// A raw disk with a boot sector that does nothing.
fn halting_disk(path: &Path) -> Result<()> {
    let mut disk = vec![0; 1 << 20];
    disk[..HALT.len()].copy_from_slice(&HALT);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(path, disk).with_context(|| format!("could not write {}", path.display()))
}

/// The rows of this experiment.
pub(crate) fn figures(samples: &Samples) -> Vec<Figure> {
    let figure = |name: String, sample: &str| Figure {
        name,
        unit: "s",
        measured: samples.median(sample),
        bar: Some((Bar::AtMost, SECONDS_MAX)),
        detail: "from its start to an answer that has them all".to_owned(),
    };
    vec![
        figure(
            format!("agent killed, {GUESTS} machines with guests and pagers found again"),
            "restart/guests s",
        ),
        figure(format!("the same, and {IDLE} machines that idle beside them"), "restart/all s"),
    ]
}
