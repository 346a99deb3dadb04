//! The agent is killed and started again: how long until it has found all machines, three that run and many that are only recorded.

use anyhow::Result;
use rackmem_types::Bytes;

use super::brick::{Brick, Vm};
use super::lab::Lab;
use crate::engine::figure::{Bar, Figure};
use crate::engine::samples::Samples;
use crate::process::call;

const SECONDS_MAX: f64 = 1.0;

const RUNNING: usize = 3;

/// Memory of each machine, and how much of it is local: each that runs has a pager that has to be found too.
const MEMORY: Bytes = Bytes(256 << 20);
const LOCAL: Bytes = Bytes(192 << 20);

/// Far memory for those that run.
const FAR: Bytes = Bytes(4 << 30);

/// One round.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    let server = lab.product.memory_server(FAR, None)?;
    let mut brick = Brick::start(lab, None, Some(&server))?;
    for number in 0..RUNNING {
        let name = format!("runs{number}");
        brick.boot(&name, brick.create(&name, MEMORY).args(["--local", &LOCAL.0.to_string()]))?;
    }
    let before = pids(&brick.list()?);
    let took = brick.agent_restart(|vms| runs(vms) == RUNNING && pids(vms) == before)?;
    samples.add("restart/running s", took.as_secs_f64());
    for number in 0..lab.recorded {
        call(brick.create(&format!("recorded{number}"), MEMORY).arg("--no-start"))?;
    }
    let all = RUNNING + lab.recorded as usize;
    let took = brick.agent_restart(|vms| vms.len() == all && runs(vms) == RUNNING && pids(vms) == before)?;
    samples.add("restart/recorded s", took.as_secs_f64());
    samples.add("restart/recorded machines", f64::from(lab.recorded));
    Ok(())
}

fn runs(vms: &[Vm]) -> usize {
    vms.iter().filter(|vm| vm.state == "running").count()
}

fn pids(vms: &[Vm]) -> Vec<u32> {
    let mut pids: Vec<u32> = vms.iter().filter_map(|vm| vm.pid).collect();
    pids.sort_unstable();
    pids
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
    let recorded = samples.median("restart/recorded machines").unwrap_or_default();
    vec![
        figure(format!("agent killed, {RUNNING} running machines found again"), "restart/running s"),
        figure(format!("the same, and {recorded:.0} recorded ones beside them"), "restart/recorded s"),
    ]
}
