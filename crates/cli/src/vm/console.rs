//! `rackmem vm console`: a machine's serial console on this terminal, until Ctrl-].

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use clap::Args;
use rackmem_api::VmName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::whom::{Machines, Whom};

/// Ctrl-], as on other consoles.
const LEAVE: u8 = 0x1d;

/// Keys that wait for a slow console: a pasted page.
const KEYS_WAITING: usize = 64;

/// Speak to a machine's serial console; Ctrl-] leaves it
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Name of the machine
    pub(crate) name: VmName,
}

impl Arguments {
    pub(crate) async fn run(&self, whom: &impl Whom) -> anyhow::Result<ExitCode> {
        let console = whom.client()?.console(&self.name).await?;
        let is_terminal = io::stdin().is_terminal();
        if is_terminal {
            eprintln!("console of {}; Ctrl-] leaves it", self.name);
        }
        let raw = is_terminal.then(Raw::new).transpose()?;
        let (mut from, mut to) = tokio::io::split(console.0);
        let mut keys = keys()?;
        let mut bytes = [0; 4096];
        loop {
            tokio::select! {
                key = keys.recv() => match key {
                    Some(key) => to.write_all(&key).await.context("the console is gone")?,
                    None if is_terminal => break,
                    // What was piped in is over; what is answered is still to come.
                    None => { to.shutdown().await.ok(); break }
                },
                count = from.read(&mut bytes) => {
                    let count = count.context("the console is gone")?;
                    if count == 0 {
                        break;
                    }
                    let mut out = io::stdout().lock();
                    out.write_all(&bytes[..count]).and_then(|()| out.flush())?;
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
