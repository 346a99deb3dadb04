//! What a person sees while an operation runs: one line on the terminal that is written over. Nothing where standard error
//! is no terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use rackmem_api::agent::AgentClient;
use rackmem_api::operation::WaitQuery;
use rackmem_api::{ApiError, Operation};
use tokio::time::sleep;

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Longer steps are cut: a line that wraps cannot be written over.
const STEP_MAX: usize = 60;

/// Seconds of one wait where nobody watches.
const WAIT_S: u32 = 60;

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
        client: &AgentClient,
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
