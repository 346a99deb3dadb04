//! `rackmem reservation`, `rackmem apply`, `rackmem release`: what is reserved, and its way on.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use rackmem_api::controller::{ReservationResize, ReservationView};
use rackmem_types::Bytes;

use super::ask::ControllerOptions;
use super::from_now;
use crate::progress::finish;
use crate::{facts, out, style};

/// What a narrow terminal does without.
const SPARE: [&str; 2] = ["EXPIRES IN", "PROJECT"];

/// See what is reserved, and change how much
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    controller: ControllerOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the reservations
    List,
    /// Show one reservation and where its memory is
    Show {
        /// Its number
        id: u64,
    },
    /// Give a reservation more or less memory
    Resize {
        /// Its number
        id: u64,
        /// Far memory that it is to have
        memory: Bytes,
    },
}

/// Carry out a reservation that is held
#[derive(Args, Debug)]
pub(crate) struct Apply {
    /// Its number
    id: u64,
    #[command(flatten)]
    controller: ControllerOptions,
}

/// End a reservation and undo what was done for it
#[derive(Args, Debug)]
pub(crate) struct Release {
    /// Its number
    id: u64,
    #[command(flatten)]
    controller: ControllerOptions,
}

impl Apply {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        let client = self.controller.changing().await?;
        let asked = client.reservation_apply(self.id).await?;
        finish(self.controller.telling(), &client, asked, &format!("reservation {}: applied", self.id)).await
    }
}

impl Release {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        let client = self.controller.changing().await?;
        let asked = client.reservation_release(self.id).await?;
        finish(self.controller.telling(), &client, asked, &format!("reservation {}: released", self.id)).await
    }
}

impl Arguments {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        let options = &self.controller;
        match &self.command {
            Command::List => list(options).await,
            Command::Show { id } => show(options, *id).await,
            Command::Resize { id, memory } => {
                let client = options.changing().await?;
                let asked = client.reservation_resize(*id, ReservationResize { memory: *memory }).await?;
                finish(options.telling(), &client, asked, &format!("reservation {id}: has {memory}")).await
            }
        }
    }
}

async fn list(options: &ControllerOptions) -> anyhow::Result<ExitCode> {
    let reservations = options.client()?.reservation_list().await?;
    if options.json {
        out::json(&reservations)?;
    } else if reservations.is_empty() {
        out::note("nothing is reserved; reserve with 'rackmem reserve'");
    } else {
        let rows: Vec<_> = reservations.iter().map(row).collect();
        let heads = ["ID", "STATE", "COMPUTE", "MEMORY", "CLASS", "ON", "PROJECT", "EXPIRES IN"];
        out::text(facts::rows(heads, &SPARE, &rows, style::width()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(of: &ReservationView) -> [String; 8] {
    let mut bricks: Vec<&str> = of.mappings.iter().map(|mapping| mapping.segment.brick.as_str()).collect();
    bricks.extend(of.accelerator.as_ref().map(|has| has.brick.as_str()));
    bricks.sort_unstable();
    bricks.dedup();
    [
        of.id.to_string(),
        of.state.clone(),
        of.compute.clone(),
        of.memory.to_string(),
        of.class.to_string(),
        if bricks.is_empty() { "-".to_owned() } else { bricks.join(",") },
        of.project.clone(),
        of.expires_ms.filter(|_| of.state == "reserved").map_or_else(|| "-".to_owned(), from_now),
    ]
}

async fn show(options: &ControllerOptions, id: u64) -> anyhow::Result<ExitCode> {
    let reservation = options.client()?.reservation_show(id).await?;
    if options.json {
        out::json(&reservation)?;
        return Ok(ExitCode::SUCCESS);
    }
    let accelerator = reservation.accelerator.as_ref();
    let mut text = facts::facts(
        &[
            ("id", Some(reservation.id.to_string())),
            ("state", Some(reservation.state.clone())),
            ("project", Some(reservation.project.clone())),
            ("compute", Some(reservation.compute.clone())),
            ("cores", (reservation.cores > 0).then(|| reservation.cores.to_string())),
            ("local", (reservation.local > Bytes(0)).then(|| reservation.local.to_string())),
            ("memory", Some(format!("{}, {} at most", reservation.memory, reservation.class))),
            ("accelerator", accelerator.map(|has| format!("{} slots of {}", has.slots, has.brick))),
            ("group", reservation.group.clone()),
        ],
        style::width(),
    );
    for mapping in &reservation.mappings {
        let lost = if mapping.lost { ", LOST by its memory server" } else { "" };
        text += &format!(
            "segment {}: {} on {}, attachment {} at {:#x}{lost}\n",
            mapping.segment.id,
            mapping.segment.size,
            mapping.segment.brick,
            mapping.attachment,
            mapping.start
        );
    }
    out::text(text)?;
    Ok(ExitCode::SUCCESS)
}
