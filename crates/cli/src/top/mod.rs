//! `rackmem top`: a live view of all targets.
//!
//! Three threads: one samples the pagers, one carries out what the user asked for, and the main one draws and reads
//! keys, so that a pager which hangs never freezes the screen. They meet in one channel of [`Input`]s, and all that
//! happens to the screen happens in [`App::apply`].

mod draw;
mod model;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use rackmem_control::{Client, ControlError};

use crate::ps::{Targets, has_ended};
use model::{Action, App, Input, Key};

/// Time between two samples: fast enough to see a change, slow enough to read a number.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long a key can wait for the channel to be read.
const KEY_WAIT: Duration = Duration::from_millis(50);

/// Watch all processes that have far memory, live
#[derive(Args, Debug)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments) -> anyhow::Result<ExitCode> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!("top draws on a terminal, and this is none; use 'rackmem ps' or 'rackmem ps --json'");
    }
    let (inputs, received) = mpsc::channel();
    let (actions, asked) = mpsc::channel();
    let sampler = inputs.clone();
    thread::Builder::new().name("sample".to_owned()).spawn(move || sample(&sampler))?;
    thread::Builder::new().name("act".to_owned()).spawn(move || act(&asked, &inputs))?;
    let mut terminal = ratatui::try_init().context("cannot take over the terminal")?;
    let outcome = show(&mut terminal, &received, &actions);
    ratatui::restore();
    outcome.map(|()| ExitCode::SUCCESS)
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    received: &Receiver<Input>,
    actions: &Sender<Action>,
) -> anyhow::Result<()> {
    let mut app = App::new(crate::options::ram());
    loop {
        terminal.draw(|frame| draw::draw(frame, &app)).context("cannot draw")?;
        let key = read_key().context("cannot read keys")?;
        for input in key.map(Input::Key).into_iter().chain(received.try_iter()) {
            match app.apply(input) {
                Some(Action::Quit) => return Ok(()),
                Some(action) => actions.send(action).context("the thread that acts is gone")?,
                None => {}
            }
        }
    }
}

fn read_key() -> io::Result<Option<Key>> {
    use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
    if !event::poll(KEY_WAIT)? {
        return Ok(None);
    }
    let Event::Key(key) = event::read()? else { return Ok(None) };
    if key.kind == KeyEventKind::Release {
        return Ok(None);
    }
    Ok(match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
        KeyCode::Char(c) => Some(Key::Char(c)),
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        KeyCode::Esc => Some(Key::Escape),
        _ => None,
    })
}

/// Samples until the screen is gone. Connections are kept, and looked for anew when targets come and go.
fn sample(inputs: &Sender<Input>) {
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let mut stats = Vec::new();
        let mut trouble = refresh(&mut clients).err().map(|error| error.to_string());
        clients.retain_mut(|client| match client.stats() {
            Ok(sample) => {
                stats.push(sample);
                true
            }
            Err(error) => {
                if !has_ended(&error) {
                    trouble = Some(error.to_string());
                }
                false
            }
        });
        let inputs_gone = inputs.send(Input::Sample(stats)).is_err()
            || trouble.is_some_and(|trouble| inputs.send(Input::Message(trouble)).is_err());
        if inputs_gone {
            return;
        }
        thread::sleep(INTERVAL);
    }
}

fn refresh(clients: &mut Vec<Client>) -> Result<(), ControlError> {
    let pids = rackmem_control::targets()?;
    let is_known = |pid: &u32| clients.iter().any(|client| client.pid() == *pid);
    if !pids.iter().all(is_known) {
        *clients = Targets::open()?.clients;
    }
    Ok(())
}

/// Carries out one action after the other, and says how it went.
fn act(asked: &Receiver<Action>, inputs: &Sender<Input>) {
    for action in asked {
        let outcome = match action {
            Action::Quit => return,
            Action::Limit(pid, limit) => Client::open(pid)
                .and_then(|mut client| client.limit_set(limit))
                .map(|()| format!("process {pid}: local limit {limit}")),
            Action::Detach(pid) => Client::open(pid)
                .and_then(|mut client| client.detach())
                .map(|report| format!("process {pid}: detached in {} ms", report.took_us.div_ceil(1000))),
        };
        let message = outcome.unwrap_or_else(|error| error.to_string());
        if inputs.send(Input::Message(message)).is_err() {
            return;
        }
    }
}
