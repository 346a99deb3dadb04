//! What a person sees while an operation runs: one line on the terminal that is written over, nothing where standard error is
//! no terminal; and how its end is told.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use rackmem_api::client::CommonClient;
use rackmem_api::operation::WaitQuery;
use rackmem_api::{ApiError, Operation, OperationState};
use tokio::time::{Instant, sleep};

use crate::away::{Pauses, is_away};
use crate::out;

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Longer lines are cut: one that wraps cannot be written over.
const LINE_MAX: usize = 79;

/// A controller's operation is waited for that long after it was heard of last: a restart takes less. An agent is not waited for: who
/// asks it itself is told at once that it has died.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Seconds of one wait where nobody watches.
const WAIT_S: u32 = 60;

/// How an operation is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Telling {
    /// As JSON.
    pub(crate) json: bool,
    /// At once, not at its end.
    pub(crate) no_wait: bool,
    /// A controller carries it out, not an agent.
    pub(crate) over_racks: bool,
}

/// Waits for the operation's end, unless it is not to be waited for, and tells of it.
pub(crate) async fn finish(
    telling: Telling,
    client: &CommonClient,
    operation: Operation,
    done: &str,
) -> anyhow::Result<ExitCode> {
    let Telling { json, no_wait, .. } = telling;
    let operation =
        if no_wait { operation } else { Progress::new(telling).follow(client, operation).await? };
    if json {
        out::json(&operation)?;
    }
    match (operation.state, operation.error) {
        (OperationState::Running, _) if !json => {
            out::line(format_args!("operation {} goes on", operation.id))?
        }
        (OperationState::Done, _) if !json => match operation.note {
            Some(note) => out::line(format_args!("{}: {note}", operation.target))?,
            None => out::line(done)?,
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
    over_racks: bool,
}

impl Progress {
    pub(crate) fn new(telling: Telling) -> Self {
        Self { is_shown: !telling.json && io::stderr().is_terminal(), over_racks: telling.over_racks }
    }

    /// Waits until the operation has ended. It goes on at the next start of whoever carries it out, so that is waited for, too.
    pub(crate) async fn follow(
        &self,
        client: &CommonClient,
        mut operation: Operation,
    ) -> anyhow::Result<Operation> {
        let mut heard = Instant::now();
        let mut pauses = Pauses::default();
        while !operation.state.is_final() {
            match self.look(client, &operation).await {
                Ok(now) => {
                    operation = now;
                    (heard, pauses) = (Instant::now(), Pauses::default());
                }
                Err(error) if !is_away(&error) => return Err(error.into()),
                Err(error) if !self.over_racks || heard.elapsed() > AWAY_MAX => {
                    return Err(anyhow::Error::from(error).context(self.unknown(&operation)));
                }
                Err(_) => {
                    if self.is_shown {
                        self.write(&cut(&format!("{}: nobody answers; it is asked again", operation.target)));
                    }
                    sleep(pauses.next()).await;
                }
            }
        }
        if self.is_shown {
            self.write("");
        }
        Ok(operation)
    }

    /// The operation as it is a little later.
    async fn look(&self, client: &CommonClient, operation: &Operation) -> Result<Operation, ApiError> {
        if self.is_shown {
            self.write(&line(operation));
            sleep(LOOK_EVERY).await;
            client.operation_show(operation.id).await
        } else {
            client.operation_wait(operation.id, WaitQuery { timeout: WAIT_S }).await
        }
    }

    /// What is known of an operation when nobody answers any more.
    fn unknown(&self, Operation { id, target, .. }: &Operation) -> String {
        let shown =
            if self.over_racks { format!("operation show {id}") } else { format!("vm show {target}") };
        format!(
            "operation {id} was accepted and may be carried out all the same: do not ask for it again before 'rackmem {shown}' \
             has told how it ended"
        )
    }

    fn write(&self, line: &str) {
        let mut out = io::stderr().lock();
        // Erases the line first. A terminal that is gone is no reason to stop waiting.
        let _ = write!(out, "\r\x1b[K{line}").and_then(|()| out.flush());
    }
}

fn line(operation: &Operation) -> String {
    let step = operation.step.as_deref().unwrap_or("begins");
    cut(&format!("{:>3.0} %  {}: {step}", operation.progress * 100.0, operation.target))
}

fn cut(line: &str) -> String {
    line.chars().take(LINE_MAX).collect()
}
