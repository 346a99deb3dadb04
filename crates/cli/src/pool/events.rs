//! `rackmem events`: what happened, and what happens.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use futures_util::StreamExt;
use rackmem_api::controller::ControllerClient;
use rackmem_api::{Event, EventId};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{sleep, timeout};

use super::ask::ControllerOptions;
use super::from_now;
use crate::away::{Pauses, is_away};
use crate::{facts, out, style};

/// What is remembered is sent at once; when nothing more has come for so long, there was no more.
const QUIET: Duration = Duration::from_millis(500);

/// Tell what happened: operations, differences between what was believed and what is, reservations that expired
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Go on with what happens from now on, also after the controller was away
    #[arg(long, short)]
    follow: bool,
    /// Only what came after this event
    #[arg(long, value_name = "NUMBER", default_value = "0")]
    after: EventId,
    #[command(flatten)]
    controller: ControllerOptions,
}

impl Arguments {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        let client = self.controller.client()?;
        if self.follow {
            return self.follow(&client).await;
        }
        let mut events = client.events(Some(self.after)).await?;
        loop {
            match timeout(QUIET, events.next()).await {
                Ok(Some(event)) => self.print(&event?)?,
                Ok(None) => bail!("the controller has ended; ask it again when it is back"),
                Err(_) => return Ok(ExitCode::SUCCESS),
            }
        }
    }

    /// Tells what happens until somebody ends it. A controller that goes away is waited for, and what it told meanwhile is told then.
    async fn follow(&self, client: &ControllerClient) -> anyhow::Result<ExitCode> {
        let mut last = self.after;
        let mut events = client.events(Some(last)).await?;
        let mut pauses = Pauses::default();
        let mut is_told = false;
        loop {
            match events.next().await {
                Some(Ok(event)) => {
                    self.print(&event)?;
                    last = event.id;
                    (pauses, is_told) = (Pauses::default(), false);
                    continue;
                }
                Some(Err(error)) if !is_away(&error) => return Err(error.into()),
                Some(Err(_)) | None => {}
            }
            if !is_told {
                out::note("rackmem: the controller is away; it is asked again until it is back");
                is_told = true;
            }
            events = loop {
                sleep(pauses.next()).await;
                match client.events(Some(last)).await {
                    Ok(events) => break events,
                    Err(error) if is_away(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            };
        }
    }

    fn print(&self, event: &Event) -> anyhow::Result<()> {
        if self.controller.json {
            return out::line(serde_json::to_string(event)?);
        }
        // What is read later, or goes on for long, says when it was.
        let is_lasting = self.follow || !io::stdout().is_terminal();
        let when = if is_lasting { utc(event.at_ms)? } else { format!("{} ago", from_now(event.at_ms)) };
        out::text(text(event, &when, style::width()))
    }
}

/// The time of so many milliseconds since 1970 as RFC 3339 has it, in whole seconds.
fn utc(at_ms: u64) -> anyhow::Result<String> {
    let seconds = i64::try_from(at_ms / 1000).context("an event has a time that no calendar has")?;
    Ok(OffsetDateTime::from_unix_timestamp(seconds)?.format(&Rfc3339)?)
}

fn text(event: &Event, when: &str, width: usize) -> String {
    let Event { id, kind, detail, .. } = event;
    facts::facts(&[(&format!("{id}  {when}"), Some(format!("{kind}: {detail}")))], width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_and_on_a_terminal_as_many_as_it_takes() {
        let event = Event {
            id: 7,
            at_ms: 0,
            kind: "operation.failed".to_owned(),
            target: "1".to_owned(),
            detail: "no brick has so much memory free".to_owned(),
            operation: None,
        };
        let line = "7  T  operation.failed: no brick has so much memory free\n";
        assert_eq!(text(&event, "T", usize::MAX), line);
        let lines = "7  T  operation.failed: no brick has\n      so much memory free\n";
        assert_eq!(text(&event, "T", 36), lines);
    }

    #[test]
    fn times_are_in_utc() {
        assert_eq!(utc(951_868_799_999).unwrap(), "2000-02-29T23:59:59Z");
        assert!(utc(u64::MAX).is_err());
    }
}
