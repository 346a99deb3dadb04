//! `rackmem vm` over the racks: the controller chooses the brick, reserves, and has the brick's agent run the machine.

use std::process::ExitCode;

use anyhow::{Context, bail};
use rackmem_api::OperationState;
use rackmem_api::controller::{ControllerClient, MachineResize, MachineState, MachineView};
use serde::Serialize;

use super::attach::Attach;
use super::whom::Whom;
use super::{act, create, resize, show};
use crate::pool::ask::ControllerOptions;
use crate::progress::{Progress, Telling, finish};
use crate::{facts, out, style};

/// What a narrow terminal does without.
const SPARE: [&str; 4] = ["RESERVATION", "VCPUS", "ELASTIC", "PROJECT"];

impl Whom for ControllerOptions {
    type Client = ControllerClient;

    fn client(&self) -> anyhow::Result<ControllerClient> {
        Self::client(self)
    }

    async fn changing(&self) -> anyhow::Result<ControllerClient> {
        Self::changing(self).await
    }

    fn telling(&self) -> Telling {
        Self::telling(self)
    }

    async fn create(&self, create: &create::Arguments) -> anyhow::Result<ExitCode> {
        make(self, create).await
    }

    async fn list(&self) -> anyhow::Result<ExitCode> {
        list(self).await
    }

    async fn show(&self, vm: &act::Name) -> anyhow::Result<ExitCode> {
        print(self, vm).await
    }

    async fn resize(&self, resize: &resize::Arguments) -> anyhow::Result<ExitCode> {
        give(self, resize).await
    }

    async fn attach(&self, _: &Attach) -> anyhow::Result<ExitCode> {
        bail!(OF_AGENTS)
    }

    async fn detach(&self, _: &act::Name) -> anyhow::Result<ExitCode> {
        bail!(OF_AGENTS)
    }
}

/// Why a controller is not asked.
const OF_AGENTS: &str = "a controller knows the machines that were made through it; those that libvirt or somebody else runs get \
     far memory from the agent of their brick: ask that with --agent ('rackmem brick show' tells its address)";

async fn make(options: &ControllerOptions, create: &create::Arguments) -> anyhow::Result<ExitCode> {
    let new = create.over_racks()?;
    let client = options.changing().await?;
    let asked = client.vm_create(&new).await?;
    let id = asked.id;
    let done = if new.start { "runs" } else { "made" };
    let told = if options.no_wait || options.json {
        finish(options.telling(), &client, asked, "").await
    } else {
        // Where it is is known only when it is there.
        let ended = Progress::new(options.telling()).follow(&client, asked).await?;
        match ended.state {
            OperationState::Done => {
                let brick = client.vm_show(&new.name).await?.compute.unwrap_or_default();
                finish(options.telling(), &client, ended, &format!("{}: {done} on {brick}", new.name)).await
            }
            _ => finish(options.telling(), &client, ended, "").await,
        }
    };
    match told {
        Err(error)
            if client.operation_show(id).await.is_ok_and(|now| now.state == OperationState::Failed) =>
        {
            Err(error).context(format!("nothing was made (see 'rackmem why {id}')"))
        }
        told => told,
    }
}

async fn give(options: &ControllerOptions, resize: &resize::Arguments) -> anyhow::Result<ExitCode> {
    let resize::Arguments { name, memory, local, plan, allow_restart } = resize;
    let (Some(memory), None, false, false) = (memory, local, plan, allow_restart) else {
        bail!(
            "a controller changes how much memory a machine has while it runs; --local, --plan and --allow-restart are for \
             agents: ask the one that runs it with --agent"
        );
    };
    let client = options.changing().await?;
    let asked = client.vm_resize(name, MachineResize { memory: *memory }).await?;
    finish(options.telling(), &client, asked, &format!("{name}: has {memory}")).await
}

async fn list(options: &ControllerOptions) -> anyhow::Result<ExitCode> {
    let machines = options.client()?.vm_list().await?;
    if options.json {
        out::json(&machines)?;
    } else if machines.is_empty() {
        out::note("there is no virtual machine over the racks; make one with 'rackmem vm create'");
    } else {
        let heads = [
            "NAME",
            "STATE",
            "ON",
            "MEMORY",
            "MAX",
            "LOCAL",
            "FAR",
            "CLASS",
            "ELASTIC",
            "VCPUS",
            "RESERVATION",
            "PROJECT",
        ];
        let rows: Vec<_> = machines.iter().map(row).collect();
        out::text(facts::rows(heads, &SPARE, &rows, style::width()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(of: &MachineView) -> [String; 12] {
    [
        of.name.to_string(),
        word(&of.state),
        of.compute.clone().unwrap_or_else(|| "-".to_owned()),
        of.memory.to_string(),
        of.memory_max.to_string(),
        of.local.to_string(),
        of.far.to_string(),
        of.class.to_string(),
        of.elastic.map_or_else(|| "-".to_owned(), |bounds| format!("{}..{}", bounds.min, bounds.max)),
        of.vcpus.to_string(),
        of.reservation.to_string(),
        of.project.clone(),
    ]
}

async fn print(options: &ControllerOptions, vm: &act::Name) -> anyhow::Result<ExitCode> {
    let view = options.client()?.vm_show(&vm.name).await?;
    if options.json {
        out::json(&view)?;
    } else {
        out::text(text(&view))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(of: &MachineView) -> String {
    let state = match &of.reason {
        Some(reason) => format!("{} ({reason})", word(&of.state)),
        None => word(&of.state),
    };
    let far = match &of.memory_bricks[..] {
        [] => "none".to_owned(),
        bricks => format!("{} on {}, {} at most", of.far, bricks.join(", "), of.class),
    };
    let is_asked = of.machine.is_some() || of.state == MachineState::Creating;
    let mut text = facts::facts(
        &[
            ("name", Some(of.name.to_string())),
            ("state", Some(state)),
            ("project", Some(of.project.clone())),
            ("compute", of.compute.clone()),
            ("processors", Some(of.vcpus.to_string())),
            ("memory", Some(format!("{}, at most {}", of.memory, of.memory_max))),
            ("local", Some(of.local.to_string())),
            ("far", Some(far)),
            ("lost", (!of.memory_lost.is_empty()).then(|| lost(&of.memory_lost))),
            ("elastic", of.elastic.map(|bounds| format!("{} to {}", bounds.min, bounds.max))),
            ("reservation", Some(of.reservation.to_string())),
            ("operation", of.operation.map(|id| id.to_string())),
            ("agent", (!is_asked).then(|| "says nothing of it".to_owned())),
        ],
        style::width(),
    );
    if let Some(machine) = &of.machine {
        text += &format!("its agent says\n{}", show::text(machine));
    }
    text
}

fn lost(bricks: &[String]) -> String {
    format!(
        "what {} lent: the memory server was started again and has lost it; stop the machine, and 'vm start' gives it other memory",
        bricks.join(", ")
    )
}

fn word(value: &impl Serialize) -> String {
    show::word(value)
}
