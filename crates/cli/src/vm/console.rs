//! `rackmem vm console`: a machine's serial console on this terminal, until Ctrl-]. What is piped in is typed, and what the guest answers
//! is printed until it is silent.

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use rackmem_api::VmName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::whom::Whom;
use crate::out;

/// Ctrl-], as on other consoles.
const LEAVE: u8 = 0x1d;

/// Keys that wait for a slow console: a pasted page.
const KEYS_WAITING: usize = 64;

/// A guest that has said nothing for so long after the end of what was piped in has answered; one in translation takes a while.
const SILENCE: Duration = Duration::from_secs(2);

/// A guest that never falls silent is not listened to for longer than this.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Speak to a machine's serial console; Ctrl-] leaves it
///
/// What is piped in is typed; what the guest answers is printed until it has been silent for two seconds, ten seconds at most.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Name of the machine
    pub(crate) name: VmName,
}

impl Arguments {
    pub(crate) async fn run(&self, whom: &impl Whom) -> anyhow::Result<ExitCode> {
        let console = whom.client()?.vm_console(&self.name).await?;
        let is_terminal = io::stdin().is_terminal();
        if is_terminal {
            out::note(format_args!("console of {}; Ctrl-] leaves it", self.name));
        }
        let raw = is_terminal.then(Raw::new).transpose()?;
        let (mut from, mut to) = tokio::io::split(console.0);
        let mut keys = keys()?;
        let mut bytes = [0; 4096];
        // Set when what was piped in is over, and what is answered is still to come.
        let mut over: Option<Instant> = None;
        let mut silent_at = Instant::now();
        loop {
            let leave_at = over.map_or(silent_at, |over| silent_at.min(over + ANSWER_MAX));
            tokio::select! {
                key = keys.recv(), if over.is_none() => match key {
                    Some(key) => to.write_all(&key).await.context("the console is gone")?,
                    None if is_terminal => break,
                    None => {
                        over = Some(Instant::now());
                        silent_at = Instant::now() + SILENCE;
                    }
                },
                () = sleep_until(leave_at), if over.is_some() => break,
                count = from.read(&mut bytes) => {
                    let count = count.context("the console is gone")?;
                    if count == 0 {
                        break;
                    }
                    let mut out = io::stdout().lock();
                    out.write_all(&bytes[..count]).and_then(|()| out.flush())?;
                    silent_at = Instant::now() + SILENCE;
                }
            }
        }
        drop(raw);
        Ok(ExitCode::SUCCESS)
    }
}

/// What is typed, up to the key that leaves. Standard input can only be read by waiting for it, so a thread does.
fn keys() -> anyhow::Result<mpsc::Receiver<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(KEYS_WAITING);
    let read = move || {
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = io::stdin().lock().read(&mut bytes) {
            let typed = &bytes[..count];
            let leave = typed.iter().position(|byte| *byte == LEAVE);
            let sent = sender.blocking_send(typed[..leave.unwrap_or(count)].to_vec());
            if leave.is_some() || sent.is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("keys".to_owned()).spawn(read).context("cannot read the keyboard")?;
    Ok(receiver)
}

/// A terminal that passes each key on as it is, until dropped.
struct Raw;

impl Raw {
    fn new() -> io::Result<Self> {
        crossterm::terminal::enable_raw_mode().map(|()| Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = crossterm::terminal::disable_raw_mode();
    }
}
