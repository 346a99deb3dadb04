//! How long a running guest stands still while far memory is attached to it: what the pager says, and what the guest sees.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use guest_probe::{GuestFiles, ProbeClient};
use rackmem_types::Bytes;

use super::brick::{Brick, wait_ready};
use super::lab::Lab;
use crate::course::figure::{Bar, Figure};
use crate::course::samples::Samples;
use crate::process::{Daemon, call};
use crate::undo;

const PAUSE_MS_MAX: f64 = 10.0;

/// Local memory beyond the guest's: the pause is measured, not the eviction after it.
const ROOM: Bytes = Bytes(1 << 30);

/// What the guest checks over and over meanwhile, of its memory.
const CHECKED_PARTS: u64 = 8;

/// Before and after the attach.
const MARGIN: Duration = Duration::from_millis(300);

/// How long the same guest is watched without an attach.
const UNDISTURBED: Duration = Duration::from_millis(1500);

const PROBE_PATIENCE: Duration = Duration::from_secs(60);

/// One round.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    let local = Bytes(lab.growth.0 + ROOM.0);
    let server = lab.product.memory_server(local, None)?;
    let brick = Brick::start(lab, None, Some(&server))?;
    brick.wait_settled()?;
    let (directory, _undo) = undo::temporary_directory()?;
    let [console, socket] = ["console.log", "probe.sock"].map(|name| directory.join(name));
    // A machine of somebody else's: the agent attaches to its own before they run.
    let machine = Daemon::spawn(
        Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35"])
            .args(["-accel", lab.accelerator.as_deref().unwrap_or("tcg"), "-cpu", "max", "-smp", "2"])
            .args(["-m", &format!("{}M", lab.growth.0 >> 20)])
            .arg("-kernel")
            .arg(&lab.guest.kernel)
            .arg("-initrd")
            .arg(&lab.guest.initrd)
            .args(["-append", GuestFiles::KERNEL_ARGUMENTS])
            .args(["-serial", &format!("file:{}", console.display())])
            .args(GuestFiles::probe_options(&socket))
            .stdin(Stdio::null()),
    )?;
    wait_ready(&console)?;
    let mut probe = ProbeClient::connect(&socket, PROBE_PATIENCE)?;
    probe.fill(1, Bytes::from_pages(lab.growth.pages() / CHECKED_PARTS))?;
    probe.churn_start(0)?;
    thread::sleep(UNDISTURBED);
    samples.add("attach/gap ms, undisturbed", ms(probe.churn_stop()?.longest_us));
    probe.churn_start(0)?;
    thread::sleep(MARGIN);
    let pid = machine.pid().to_string();
    call(brick.vm().args(["attach", &pid, "--name", "attached", "--local", &local.0.to_string()]))?;
    thread::sleep(MARGIN);
    samples.add(pause("guest"), ms(probe.churn_stop()?.longest_us));
    let stats = lab.product.stats(machine.pid())?.context("the machine is not in `rackmem ps`")?;
    samples.add(pause("pager"), ms(stats.attach_pause_us));
    samples.add("attach/managed MiB", (stats.managed.0 >> 20) as f64);
    call(brick.vm().args(["detach", "attached"])).map(drop)
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

fn pause(by: &str) -> String {
    format!("attach/pause ms, {by}")
}

/// The rows of this experiment.
pub(crate) fn figures(samples: &Samples) -> Vec<Figure> {
    let undisturbed = samples.median("attach/gap ms, undisturbed");
    let figure = |by: &str| Figure {
        name: format!("a guest's pause at attach, seen by the {by}"),
        unit: "ms",
        measured: samples.median(&pause(by)),
        bar: Some((Bar::AtMost, PAUSE_MS_MAX)),
        detail: match undisturbed {
            Some(gap) if by == "guest" => format!("{gap:.2} ms without an attach"),
            _ => String::new(),
        },
    };
    vec![figure("pager"), figure("guest")]
}
