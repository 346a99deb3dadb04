//! `rackmem vm resize`: another amount of memory while the guest runs; or only what that would take.

use std::process::ExitCode;

use clap::Args;
use rackmem_api::VmName;
use rackmem_api::agent::{Mechanism, ResizePlan, ResizeRequest};
use rackmem_types::Bytes;

use super::AgentOptions;
use super::whom::Whom;
use crate::out;
use crate::progress::finish;

/// Change a machine's memory while it runs, up or down
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Name of the machine
    pub(crate) name: VmName,
    /// What the guest is to have, for example 16GiB
    #[arg(required_unless_present = "local")]
    pub(crate) memory: Option<Bytes>,
    /// How much of it may be in the brick's RAM
    #[arg(long, value_name = "SIZE")]
    pub(crate) local: Option<Bytes>,
    /// Only tell what would be done, and what it may cost
    #[arg(long)]
    pub(crate) plan: bool,
    /// Restart the guest where the size cannot be had otherwise
    #[arg(long)]
    pub(crate) allow_restart: bool,
}

impl Arguments {
    pub(crate) async fn run(&self, agent: &AgentOptions) -> anyhow::Result<ExitCode> {
        let client = agent.changing().await?;
        let request = ResizeRequest {
            memory: self.memory,
            local: self.local,
            plan: self.plan,
            restart: self.allow_restart,
        };
        if self.plan {
            let plan = client.vm_resize_plan(&self.name, request).await?;
            match agent.json {
                true => out::json(&plan)?,
                false => out::text(text(&plan))?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        let operation = client.vm_resize(&self.name, request).await?;
        let done = match (self.memory, self.local) {
            (Some(memory), _) => format!("{}: has {memory}", self.name),
            (None, Some(local)) => format!("{}: local limit {local}", self.name),
            (None, None) => self.name.to_string(),
        };
        finish(agent.telling(), &client, operation, &done).await
    }
}

fn text(plan: &ResizePlan) -> String {
    let mut text = format!("{}: from {} to {}\n", plan.vm, plan.from, plan.to);
    if plan.steps.is_empty() {
        text += "nothing has to be done\n";
    }
    for (at, step) in plan.steps.iter().enumerate() {
        let what = match step.mechanism {
            Mechanism::Balloon if step.to < step.from => "deflate the balloon",
            Mechanism::Balloon => "inflate the balloon",
            Mechanism::VirtioMem if step.to < step.from => "unplug (virtio-mem)",
            Mechanism::VirtioMem => "plug (virtio-mem)",
            Mechanism::Dimm if step.to < step.from => "eject a DIMM",
            Mechanism::Dimm => "plug a DIMM",
            Mechanism::LocalLimit => "set the local limit",
            Mechanism::Restart => "restart the guest",
        };
        let short = if step.cost.may_stop_short { ", perhaps only in part" } else { "" };
        text += &format!("{}. {what}: {} → {}{short}\n", at + 1, step.from, step.to);
        text += &format!("   about {} ms; {}\n", step.cost.expected_ms, step.cost.effect);
    }
    for warning in &plan.warnings {
        text += &format!("note: {warning}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackmem_api::agent::{ResizeStep, StepCost};

    #[test]
    fn a_plan_reads_as_a_list() {
        let cost = StepCost { expected_ms: 250, may_stop_short: true, effect: "pages move".to_owned() };
        let step =
            ResizeStep { mechanism: Mechanism::VirtioMem, from: Bytes(2 << 30), to: Bytes(1 << 30), cost };
        let plan = ResizePlan {
            vm: "web1".parse().unwrap(),
            from: Bytes(3 << 30),
            to: Bytes(2 << 30),
            steps: vec![step],
            restart: false,
            warnings: vec!["the guest is silent".to_owned()],
        };
        assert_eq!(
            text(&plan),
            "web1: from 3GiB to 2GiB\n1. unplug (virtio-mem): 2GiB → 1GiB, perhaps only in part\n   about 250 ms; pages \
             move\nnote: the guest is silent\n"
        );
        assert!(text(&ResizePlan { steps: vec![], ..plan }).contains("nothing has to be done"));
    }
}
