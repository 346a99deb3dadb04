//! Reservations end to end: through the API, the store on the disk, and simulated agents, each over TCP.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rackmem_api::OperationState;
use rackmem_api::controller::ControllerClient;
use rackmem_api::operation::OperationFilter;

use super::fleet::Fleet;
use super::lab::{Lab, SMALL};
use super::load::{block_on, reserve};
use crate::course::figure::{Bar, Figure};
use crate::course::samples::Samples;
use crate::process::{call, cpu_time};

const RATE_MIN: f64 = 1000.0;
const BURST: u64 = 10_000;
const COUNT: u64 = 20_000;

/// How long the rest of a burst may take after a restart.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);

const RATE: &str = "reservations/per s";
const KEPT: &str = "reservations/burst kept";

/// One round.
pub(crate) fn run(lab: &Lab, samples: &mut Samples) -> Result<()> {
    // Each has agents of its own: what one controller left in their tables is in the way of another.
    rate(lab, &Fleet::start(SMALL)?, samples)?;
    burst(lab, &Fleet::start(SMALL)?, samples)
}

/// How many a second end well.
fn rate(lab: &Lab, fleet: &Fleet, samples: &mut Samples) -> Result<()> {
    let count = lab.scaled(COUNT);
    let running = fleet.controller(lab, &fleet.state("rate"))?;
    let seconds = block_on(async {
        let client = running.client().await?;
        let start = Instant::now();
        reserve(&client, SMALL.computes(), count, true).await?;
        Ok(start.elapsed().as_secs_f64())
    })?;
    samples.add(RATE, count as f64 / seconds);
    let busy = cpu_time(running.daemon.pid())?.as_secs_f64();
    samples.add("reservations/controller's CPU µs each", 1e6 * busy / count as f64);
    Ok(())
}

/// A burst is accepted, the controller is killed at once, and another one finishes what was accepted.
fn burst(lab: &Lab, fleet: &Fleet, samples: &mut Samples) -> Result<()> {
    let (count, state) = (lab.scaled(BURST), fleet.state("burst"));
    let running = fleet.controller(lab, &state)?;
    let accepted = block_on(async {
        let client = running.client().await?;
        let start = Instant::now();
        let accepted = reserve(&client, SMALL.computes(), count, false).await?;
        samples.add("reservations/burst accepted in s", start.elapsed().as_secs_f64());
        Ok(accepted)
    })?;
    call(Command::new("kill").args(["-KILL", &running.daemon.pid().to_string()]))?;
    drop(running);
    let accepted: Result<BTreeSet<u64>, _> = accepted.iter().map(|one| one.target.parse()).collect();
    let accepted = accepted.context("an operation without a reservation")?;
    ensure!(accepted.len() as u64 == count, "reservations share numbers");
    let start = Instant::now();
    let running = fleet.controller(lab, &state)?;
    let kept = block_on(async {
        let client = running.client().await?;
        settled(&client).await?;
        let filter = OperationFilter { state: Some(OperationState::Failed), ..OperationFilter::default() };
        if let Some(failed) = client.operation_list(&filter).await?.first() {
            eprintln!("of the burst, one that failed: {:?}", failed.error);
        }
        let applied = client.reservation_list().await?.into_iter().filter(|one| one.state == "applied");
        Ok(applied.filter(|one| accepted.contains(&one.id)).count())
    })?;
    samples.add("reservations/burst finished after a restart in s", start.elapsed().as_secs_f64());
    samples.add(KEPT, kept as f64 / count as f64);
    Ok(())
}

/// Waits until nothing is running.
async fn settled(client: &ControllerClient) -> Result<()> {
    let start = Instant::now();
    while client.controller().await?.operations > 0 {
        ensure!(start.elapsed() < PATIENCE, "operations do not end");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// The rows of this experiment.
pub(crate) fn figures(samples: &Samples) -> Vec<Figure> {
    vec![
        Figure {
            name: "reservations end to end".to_owned(),
            unit: "/ s",
            measured: samples.median(RATE),
            bar: Some((Bar::AtLeast, RATE_MIN)),
            detail: "API, store, simulated agents".to_owned(),
        },
        Figure {
            name: "of a burst of 10000 that was accepted, kept over a kill".to_owned(),
            unit: "%",
            measured: samples.spread(KEPT).map(|kept| 100.0 * kept.min),
            bar: Some((Bar::AtLeast, 100.0)),
            detail: "the worst round".to_owned(),
        },
    ]
}
