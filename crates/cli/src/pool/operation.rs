//! `rackmem operation …` and `rackmem why`: work that the controller accepted.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use rackmem_api::operation::OperationFilter;
use rackmem_api::{Operation, OperationId, OperationState};

use super::ask::ControllerOptions;
use super::{from_now, word};
use crate::progress::finish;
use crate::{facts, out, style};

/// What a narrow terminal does without.
const SPARE: [&str; 2] = ["BY", "AGO"];

/// Watch and cancel what the controller was asked for
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    controller: ControllerOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List operations, the newest first
    List {
        /// Only those in this state
        #[arg(long, value_enum)]
        state: Option<State>,
        /// Only those done to this brick or reservation
        #[arg(long)]
        target: Option<String>,
        /// So many at most
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: Option<u32>,
    },
    /// Show one operation
    Show {
        /// The operation
        id: OperationId,
    },
    /// Ask a running operation to stop and to undo what it did
    Cancel {
        /// The operation
        id: OperationId,
    },
    /// Wait until an operation has ended; fails if it did
    Wait {
        /// The operation
        id: OperationId,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum State {
    Running,
    Done,
    Failed,
    Cancelled,
}

/// Tell, brick by brick, what each means for the request of an operation
#[derive(Args, Debug)]
pub(crate) struct Why {
    /// The operation
    id: OperationId,
    #[command(flatten)]
    controller: ControllerOptions,
}

impl Arguments {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        let options = &self.controller;
        match &self.command {
            Command::List { state, target, limit } => {
                let state = state.map(|state| match state {
                    State::Running => OperationState::Running,
                    State::Done => OperationState::Done,
                    State::Failed => OperationState::Failed,
                    State::Cancelled => OperationState::Cancelled,
                });
                list(options, &OperationFilter { state, target: target.clone(), limit: *limit }).await
            }
            Command::Show { id } => show(options, *id).await,
            Command::Cancel { id } => {
                let client = options.changing().await?;
                let operation = client.operation_cancel(*id).await?;
                if options.json {
                    out::json(&operation)?;
                } else if operation.state == OperationState::Cancelled {
                    out::line(format_args!("operation {id} is cancelled"))?;
                } else if operation.state.is_final() {
                    out::line(format_args!("operation {id} had ended already: {}", word(&operation.state)))?;
                } else {
                    out::line(format_args!(
                        "operation {id} was asked to stop; see 'rackmem operation wait {id}'"
                    ))?;
                }
                Ok(ExitCode::SUCCESS)
            }
            Command::Wait { id } => {
                let client = options.client()?;
                let operation = client.operation_show(*id).await?;
                let done = format!("{} of {}: done", operation.kind, operation.target);
                finish(options.telling(), &client, operation, &done).await
            }
        }
    }
}

async fn list(options: &ControllerOptions, filter: &OperationFilter) -> anyhow::Result<ExitCode> {
    let operations = options.client()?.operation_list(filter).await?;
    if options.json {
        out::json(&operations)?;
    } else if operations.is_empty() {
        out::note("there is no such operation");
    } else {
        let rows: Vec<_> = operations.iter().map(row).collect();
        out::text(facts::rows(
            ["ID", "KIND", "TARGET", "STATE", "BY", "AGO", "SAYS"],
            &SPARE,
            &rows,
            style::width(),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(operation: &Operation) -> [String; 7] {
    [
        operation.id.to_string(),
        operation.kind.clone(),
        operation.target.clone(),
        word(&operation.state),
        operation.by.clone(),
        from_now(operation.updated_ms),
        says(operation).unwrap_or_else(|| "-".to_owned()),
    ]
}

/// What it has to say: why it failed, else what is to be known of it, else where it is.
fn says(operation: &Operation) -> Option<String> {
    let error = operation.error.as_ref().map(|problem| problem.detail.clone());
    let step = operation.step.clone().filter(|_| !operation.state.is_final());
    error.or_else(|| operation.note.clone()).or(step)
}

async fn show(options: &ControllerOptions, id: OperationId) -> anyhow::Result<ExitCode> {
    let operation = options.client()?.operation_show(id).await?;
    if options.json {
        out::json(&operation)?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = facts::facts(
        &[
            ("id", Some(operation.id.to_string())),
            ("kind", Some(operation.kind.clone())),
            ("target", Some(operation.target.clone())),
            ("state", Some(format!("{}, {:.0} %", word(&operation.state), operation.progress * 100.0))),
            ("step", operation.step.clone()),
            ("error", operation.error.as_ref().map(|problem| problem.detail.clone())),
            ("note", operation.note.clone()),
            ("by", Some(operation.by.clone())),
            ("generation", Some(operation.generation.to_string())),
            ("accepted", Some(format!("{} ago", from_now(operation.created_ms)))),
            ("changed", Some(format!("{} ago", from_now(operation.updated_ms)))),
        ],
        style::width(),
    );
    out::text(text)?;
    Ok(ExitCode::SUCCESS)
}

impl Why {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        let client = self.controller.client()?;
        let reasons = client.operation_why(self.id).await?;
        if self.controller.json {
            out::json(&reasons)?;
            return Ok(ExitCode::SUCCESS);
        }
        // It may have failed for what is no brick's fault: a quota, or something that was changed since.
        if let Some(error) = client.operation_show(self.id).await?.error {
            out::line(facts::facts(&[("error", Some(error.detail))], style::width()).trim_end())?;
        }
        let rows: Vec<_> = reasons
            .into_iter()
            .map(|reason| {
                let serves = if reason.serves { "yes" } else { "no" };
                [reason.brick, reason.kind, serves.to_owned(), reason.why]
            })
            .collect();
        if rows.is_empty() {
            out::note("no brick means anything for it");
        } else {
            out::text(facts::rows(["BRICK", "KIND", "SERVES", "WHY"], &["KIND"], &rows, style::width()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
