//! `rackmem events`: what happened, and what happens.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use futures_util::StreamExt;
use rackmem_api::{Event, EventId};

use super::ask::ControllerOptions;
use super::away;

/// What is remembered is sent at once; when nothing more has come for so long, there was no more.
const QUIET: Duration = Duration::from_millis(500);

/// Tell what happened: operations, differences between what was believed and what is, reservations that expired
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Go on with what happens from now on
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
        let mut events = client.events(Some(self.after)).await?;
        loop {
            let next = if self.follow {
                events.next().await
            } else {
                match tokio::time::timeout(QUIET, events.next()).await {
                    Ok(next) => next,
                    Err(_) => return Ok(ExitCode::SUCCESS),
                }
            };
            match next {
                Some(event) => self.print(&event?)?,
                None => bail!("the controller has ended; ask it again when it is back"),
            }
        }
    }

    fn print(&self, event: &Event) -> anyhow::Result<()> {
        if self.controller.json {
            println!("{}", serde_json::to_string(event)?);
        } else {
            let Event { id, at_ms, kind, detail, .. } = event;
            println!("{id}  {} ago  {kind}: {detail}", away(*at_ms));
        }
        Ok(())
    }
}
