//! `rackmem ps`: a table of all targets. Also the samples that `top` draws from.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;
use rackmem_control::{Client, ControlError, TargetStats};
use serde::Serialize;

use crate::rates::Rates;
use crate::{out, style, table};

/// Time between the two samples that rates are computed from: long enough for a steady number, short enough to wait.
const INTERVAL: Duration = Duration::from_millis(250);

/// List the processes that have far memory
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Everything, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A target as scripts read it.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    stats: &'a TargetStats,
    rates: &'a Rates,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Targets { mut clients, mut troubles } = Targets::open()?;
    let mut first = Vec::new();
    clients.retain_mut(|client| keep(client.stats(), &mut first, &mut troubles));
    if !clients.is_empty() {
        thread::sleep(INTERVAL);
    }
    let mut second = Vec::new();
    for client in &mut clients {
        keep(client.stats(), &mut second, &mut troubles);
    }
    let rows: Vec<(TargetStats, Rates)> = second
        .into_iter()
        .filter_map(|after| {
            let before = first.iter().find(|before| before.pid == after.pid)?;
            let rates = Rates::between(before, &after);
            Some((after, rates))
        })
        .collect();
    print(&rows, arguments.json)?;
    for trouble in &troubles {
        style::print_error(trouble);
    }
    Ok(if troubles.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(rows: &[(TargetStats, Rates)], json: bool) -> anyhow::Result<()> {
    if json {
        let rows: Vec<Row<'_>> = rows.iter().map(|(stats, rates)| Row { stats, rates }).collect();
        out::json(&rows)?;
        return Ok(());
    }
    if rows.is_empty() {
        out::note("no process has far memory; start one with 'rackmem run' or 'rackmem attach'");
        return Ok(());
    }
    out::text(table::render(rows, style::width()))?;
    for (stats, _) in rows {
        for warning in &stats.warnings {
            out::line(format_args!("process {}: {}", stats.pid, table::printable(warning)))?;
        }
    }
    Ok(())
}

/// Connections to all pagers that answer.
pub(crate) struct Targets {
    pub(crate) clients: Vec<Client>,
    pub(crate) troubles: Vec<anyhow::Error>,
}

impl Targets {
    pub(crate) fn open() -> Result<Self, ControlError> {
        let mut clients = Vec::new();
        let mut troubles = Vec::new();
        for pid in rackmem_control::targets()? {
            keep(Client::open(pid), &mut clients, &mut troubles);
        }
        Ok(Self { clients, troubles })
    }
}

/// Files a result; a pager that has ended meanwhile is no trouble. Whether it was good.
fn keep<T>(result: Result<T, ControlError>, good: &mut Vec<T>, troubles: &mut Vec<anyhow::Error>) -> bool {
    match result {
        Ok(value) => good.push(value),
        Err(error) if has_ended(&error) => return false,
        Err(error) => {
            troubles.push(error.into());
            return false;
        }
    }
    true
}

/// Whether the error only says that the target or its pager is no more.
pub(crate) fn has_ended(error: &ControlError) -> bool {
    use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
    match error {
        ControlError::NotAttached(_) => true,
        ControlError::Broken { source, .. } => matches!(source.kind(), UnexpectedEof | ConnectionReset),
        _ => false,
    }
}
