//! `rackmem reserve`: memory of the racks for a compute brick (S10).

use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use rackmem_api::controller::{AcceleratorNew, GroupNew, PlanView, ReservationNew};
use rackmem_api::{LatencyClass, OperationState};
use rackmem_rack::Name;
use rackmem_types::Bytes;

use super::ask::ControllerOptions;
use crate::out;
use crate::progress::finish;

/// How a compute brick is left to the controller.
const ANY: &str = "any";

/// Reserve memory for a compute brick, and bring it there
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The compute brick, or 'any'
    #[arg(long, value_name = "BRICK", default_value = ANY)]
    compute: Name,
    /// Far memory
    #[arg(long, value_name = "SIZE", required_unless_present_any = ["join", "cores", "slots"])]
    memory: Option<Bytes>,
    /// How far away it may be: tray, rack or interrack; local where no far memory is asked for
    #[arg(long, default_value = "rack")]
    class: LatencyClass,
    /// Cores on the compute brick
    #[arg(long, value_name = "N", default_value = "0")]
    cores: u32,
    /// Local memory on the compute brick
    #[arg(long, value_name = "SIZE", default_value = "0")]
    local: Bytes,
    /// Spread over so many memory bricks at most (default: 4)
    #[arg(long, value_name = "N")]
    spread: Option<u8>,
    /// So many regions of an accelerator beside it
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// Model of the accelerator (default: any)
    #[arg(long, requires = "slots")]
    model: Option<String>,
    /// As shared memory, a new group of this name
    #[arg(long, value_name = "GROUP", conflicts_with = "join")]
    init: Option<String>,
    /// The shared memory of this group
    #[arg(long, value_name = "GROUP", conflicts_with = "memory")]
    join: Option<String>,
    /// The project that it counts against (default: yours)
    #[arg(long)]
    project: Option<String>,
    /// Show the plan, and do nothing
    #[arg(long, conflicts_with_all = ["hold", "expires"])]
    preview: bool,
    /// Only hold what it takes, until 'rackmem apply'
    #[arg(long)]
    hold: bool,
    /// Give up what is held after so many seconds, if nobody has applied it
    #[arg(long, value_name = "SECONDS", requires = "hold")]
    expires: Option<u32>,
    #[command(flatten)]
    controller: ControllerOptions,
}

impl Arguments {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        let new = self.request();
        let options = &self.controller;
        if self.preview {
            let plan = options.client()?.reservation_preview(&new).await?;
            if options.json {
                out::json(&plan)?;
            } else {
                out::text(text(&plan))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        ensure!(self.memory != Some(Bytes(0)), "--memory 0 reserves nothing: give a size, for example 1GiB");
        let client = options.changing().await?;
        let asked = client.reservation_create(&new).await?;
        let (id, reservation) = (asked.id, asked.target.clone());
        let (state, next) = if self.hold {
            ("held", format!("; carry it out with 'rackmem apply {reservation}'"))
        } else {
            ("applied", String::new())
        };
        let told =
            finish(options.telling(), &client, asked, &format!("reservation {reservation}: {state}{next}"))
                .await;
        match told {
            Err(error)
                if client.operation_show(id).await.is_ok_and(|now| now.state == OperationState::Failed) =>
            {
                Err(error).context(format!("nothing was reserved (see 'rackmem why {id}')"))
            }
            told => told,
        }
    }

    fn request(&self) -> ReservationNew {
        let compute = (self.compute.as_str() != ANY).then(|| self.compute.to_string());
        let init = self.init.clone().map(GroupNew::Init);
        ReservationNew {
            project: self.project.clone(),
            cores: self.cores,
            local: self.local,
            spread: self.spread,
            accelerator: self.slots.map(|slots| AcceleratorNew { model: self.model.clone(), slots }),
            group: init.or_else(|| self.join.clone().map(GroupNew::Join)),
            expires_s: self.expires,
            apply: !self.hold,
            ..ReservationNew::memory(compute, self.memory.unwrap_or(Bytes(0)), self.class)
        }
    }
}

fn text(plan: &PlanView) -> String {
    let mut text = format!("compute brick: {}\n", plan.compute);
    if !plan.wake.is_empty() {
        text += &format!("would be woken: {}\n", plan.wake.join(", "));
    }
    for segment in &plan.segments {
        text += &format!("memory: {} on {}\n", segment.size, segment.brick);
    }
    for circuit in &plan.circuits {
        text += &format!("circuit: {}\n", circuit.join(" "));
    }
    for (number, step) in plan.steps.iter().enumerate() {
        text += &format!("{:>3}. {step}\n", number + 1);
    }
    text
}
