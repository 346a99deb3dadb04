//! `rackmem attach`: puts a running process under far memory without a restart.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use rackmem_control::{Client, ControlError};

use crate::doctor::{self, Facts, WayOut};
use crate::options::FarOptions;
use crate::out;
use crate::process::{self, Process};
use crate::spawn::{self, Begin, Report};

/// Give a running process far memory; it runs on
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The process
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: u32,
    #[command(flatten)]
    pub(crate) far: FarOptions,
}

/// How long a pager that was killed may take to be gone.
const DYING: Duration = Duration::from_secs(1);

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let pid = arguments.pid;
    let target = process::attachable(pid)?;
    if rackmem_control::targets()?.contains(&pid) && answers(pid) {
        return Err(ControlError::AlreadyAttached(pid).into());
    }
    // Nobody answers for it; a pager that is still there is dying.
    if rackmem_pager::is_orphan(pid, DYING) {
        return take_over(arguments, &target);
    }
    let obstacles = doctor::obstacles(&Facts::read()?, Some(&target));
    if !obstacles.is_empty() {
        bail!("process {pid} ({}) cannot be attached to:{}", target.name, WayOut(&obstacles));
    }
    let mut pager = spawn::spawn(pid, target.name.as_ref(), Begin::Attach, &arguments.far)?;
    loop {
        match pager.next() {
            Report::Held => {}
            Report::Attached { pause_us } => {
                let (name, limit) = (&target.name, arguments.far.local);
                // Nobody has to read this line for the process to be attached.
                let _ = out::line(format_args!(
                    "process {pid} ({name}): attached, paused for {pause_us} µs, local limit {limit}"
                ));
                return Ok(ExitCode::SUCCESS);
            }
            Report::Failed(sentence) => bail!("process {pid} ({}) is not attached: {sentence}", target.name),
        }
    }
}

/// Whether a pager serves the process. The socket of one that was killed is still there for a moment, and nobody answers on it.
fn answers(pid: u32) -> bool {
    Client::open(pid).and_then(|mut pager| pager.stats()).is_ok()
}

/// The process waits, because its pager was killed: another one goes on.
fn take_over(arguments: &Arguments, target: &Process) -> anyhow::Result<ExitCode> {
    let (pid, name) = (arguments.pid, &target.name);
    let mut pager = spawn::spawn(pid, name.as_ref(), Begin::TakeOver, &arguments.far)?;
    loop {
        match pager.next() {
            Report::Held => {}
            Report::Attached { pause_us } => {
                let limit = arguments.far.local;
                let _ = out::line(format_args!(
                    "process {pid} ({name}): taken over from a pager that was killed, within {pause_us} µs, local limit {limit}"
                ));
                return Ok(ExitCode::SUCCESS);
            }
            Report::Failed(sentence) => bail!("process {pid} ({name}) is not taken over: {sentence}"),
        }
    }
}
