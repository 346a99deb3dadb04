//! What a person sees while an operation runs: one line on the terminal that is written over, nothing where standard error is
//! no terminal; and how its end is told.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use rackmem_api::client::CommonClient;
use rackmem_api::operation::WaitQuery;
use rackmem_api::{ApiError, Operation, OperationState};
use tokio::time::sleep;

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Longer steps are cut: a line that wraps cannot be written over.
const STEP_MAX: usize = 60;

/// Seconds of one wait where nobody watches.
const WAIT_S: u32 = 60;

/// How an operation is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Telling {
    /// As JSON.
    pub(crate) json: bool,
    /// At once, not at its end.
    pub(crate) no_wait: bool,
}

/// Waits for the operation's end, unless it is not to be waited for, and tells of it.
pub(crate) async fn finish(
    telling: Telling,
    client: &CommonClient,
    operation: Operation,
    done: &str,
) -> anyhow::Result<ExitCode> {
    let Telling { json, no_wait } = telling;
    let operation = if no_wait { operation } else { Progress::new(json).follow(client, operation).await? };
    if json {
        println!("{}", serde_json::to_string_pretty(&operation)?);
    }
    match (operation.state, operation.error) {
        (OperationState::Running, _) if !json => println!("operation {} goes on", operation.id),
        (OperationState::Done, _) if !json => match operation.note {
            Some(note) => println!("{}: {note}", operation.target),
            None => println!("{done}"),
        },
        (OperationState::Failed | OperationState::Cancelled, Some(problem)) => {
            return Err(ApiError::Problem(problem).into());
        }
        (OperationState::Failed | OperationState::Cancelled, None) => return Ok(ExitCode::FAILURE),
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The line.
#[derive(Debug)]
pub(crate) struct Progress {
    is_shown: bool,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { is_shown: !quiet && io::stderr().is_terminal() }
    }

    /// Waits until the operation has ended.
    pub(crate) async fn follow(
        &self,
        client: &CommonClient,
        mut operation: Operation,
    ) -> Result<Operation, ApiError> {
        while !operation.state.is_final() {
            if self.is_shown {
                self.write(&line(&operation));
                sleep(LOOK_EVERY).await;
                operation = client.operation_show(operation.id).await?;
            } else {
                operation = client.operation_wait(operation.id, WaitQuery { timeout: WAIT_S }).await?;
            }
        }
        if self.is_shown {
            self.write("");
        }
        Ok(operation)
    }

    fn write(&self, line: &str) {
        let mut out = io::stderr().lock();
        // Erases the line first. A terminal that is gone is no reason to stop waiting.
        let _ = write!(out, "\r\x1b[K{line}").and_then(|()| out.flush());
    }
}

fn line(operation: &Operation) -> String {
    let step: String = operation.step.as_deref().unwrap_or("begins").chars().take(STEP_MAX).collect();
    format!("{:>3.0} %  {}: {step}", operation.progress * 100.0, operation.target)
}
