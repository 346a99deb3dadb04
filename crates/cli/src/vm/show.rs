//! `rackmem vm list` and `rackmem vm show`.

use std::process::ExitCode;

use rackmem_api::agent::{FarPart, VmMemory, VmView};
use rackmem_types::Bytes;
use serde::Serialize;

use super::AgentOptions;
use super::act::Name;
use super::whom::Whom;
use crate::{facts, out, style};

/// What a narrow terminal does without.
const SPARE: [&str; 3] = ["PID", "ELASTIC", "VCPUS"];

pub(crate) async fn list(agent: &AgentOptions) -> anyhow::Result<ExitCode> {
    let vms = agent.client()?.vm_list().await?;
    if agent.json {
        out::json(&vms)?;
    } else if vms.is_empty() {
        out::note("there is no virtual machine; make one with 'rackmem vm create'");
    } else {
        let heads = ["NAME", "STATE", "MEMORY", "MAX", "LIMIT", "LOCAL", "FAR", "VCPUS", "PID", "ELASTIC"];
        let rows: Vec<_> = vms.iter().map(row).collect();
        out::text(facts::rows(heads, &SPARE, &rows, style::width()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(vm: &VmView) -> [String; 10] {
    let memory = &vm.memory;
    let dash = || "-".to_owned();
    [
        vm.name.to_string(),
        word(&vm.state),
        memory.size.to_string(),
        memory.max.to_string(),
        memory.local_limit.map_or_else(dash, |limit| limit.to_string()),
        memory.local.to_string(),
        memory.far.to_string(),
        vm.vcpus.to_string(),
        vm.pid.map_or_else(dash, |pid| pid.to_string()),
        vm.elastic.as_ref().map_or_else(dash, |view| format!("{}..{}", view.bounds.min, view.bounds.max)),
    ]
}

pub(crate) async fn show(agent: &AgentOptions, vm: &Name) -> anyhow::Result<ExitCode> {
    let vm = agent.client()?.vm_show(&vm.name).await?;
    if agent.json {
        out::json(&vm)?;
    } else {
        out::text(text(&vm))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn text(vm: &VmView) -> String {
    let state = match &vm.reason {
        Some(reason) => format!("{} ({reason})", word(&vm.state)),
        None => word(&vm.state),
    };
    let accelerator = vm.accelerator.as_ref().map(|by| format!("{} ({})", word(&by.kind), by.reason));
    let mut text = facts::facts(
        &[
            ("name", Some(vm.name.to_string())),
            ("state", Some(state)),
            ("origin", Some(word(&vm.origin))),
            ("driver", Some(word(&vm.driver))),
            ("process", vm.pid.map(|pid| pid.to_string())),
            ("qemu", vm.qemu.clone()),
            ("processors", Some(vm.vcpus.to_string())),
            ("accelerator", accelerator),
            ("memory", Some(memory(&vm.memory))),
            ("where", Some(place(&vm.memory))),
            (
                "guest",
                vm.memory.guest.map(|guest| format!("{} of {} available", guest.available, guest.total)),
            ),
            (
                "pager",
                vm.pager.map(|pager| match pager.pid {
                    Some(pid) => format!("{}, process {pid}", word(&pager.state)),
                    None => word(&pager.state),
                }),
            ),
            (
                "elastic",
                vm.elastic.as_ref().map(|view| format!("{} to {}", view.bounds.min, view.bounds.max)),
            ),
            ("operation", vm.operation.map(|id| id.to_string())),
        ],
        style::width(),
    );
    for part in &vm.memory.parts {
        text += &format!("far memory on {}\n", far(part));
    }
    for warning in &vm.warnings {
        text += &format!("note: {warning}\n");
    }
    text
}

fn memory(memory: &VmMemory) -> String {
    let VmMemory { size, target, max, base, plugged, ballooned, .. } = memory;
    let asked = if size == target { String::new() } else { format!(", {target} asked for") };
    format!(
        "{size}{asked} (started with {base}, {plugged} plugged, {ballooned} in the balloon, at most {max})"
    )
}

fn place(memory: &VmMemory) -> String {
    match memory.local_limit {
        Some(limit) => format!("{} local (limit {limit}), {} far", memory.local, memory.far),
        None => format!("{} local, no far memory", memory.local),
    }
}

fn far(part: &FarPart) -> String {
    let FarPart { server, segment, class, attachment, reserved, used, state } = part;
    let segment = segment.map(|segment| format!(", segment {segment}")).unwrap_or_default();
    let class = class.map(|class| format!(", class {class}")).unwrap_or_default();
    let attachment = attachment.as_ref().map(|id| format!(", attachment {id}")).unwrap_or_default();
    let (used, reserved): (&Bytes, &Bytes) = (used, reserved);
    format!("{server}: {used} of {reserved} reserved, {}{segment}{class}{attachment}", word(state))
}

/// The word that the API has for it.
pub(super) fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
