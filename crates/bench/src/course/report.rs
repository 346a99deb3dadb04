//! The result of a run as a table for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

use super::figure::Figure;
use super::samples::{Samples, Spread};

/// What the JSON file holds.
#[derive(Debug, Serialize)]
struct Report<'a> {
    /// Seconds since 1970.
    taken_at: u64,
    kernel: String,
    cpu: String,
    cpus: usize,
    quick: bool,
    rounds: u32,
    figures: Vec<Row<'a>>,
    samples: BTreeMap<&'a str, Spread>,
    failures: &'a [String],
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    figure: &'a Figure,
    reached: Option<bool>,
}

/// Prints the figures, and under them all that was measured.
pub(crate) fn print(figures: &[Figure], samples: &Samples) {
    let mut table = table(["figure", "measured", "bar", "reached", "made of"]);
    for figure in figures {
        let reached = match figure.reached() {
            Some(true) => Cell::new("yes").fg(Color::Green),
            Some(false) => Cell::new("no").fg(Color::Red),
            None => Cell::new("–"),
        };
        let [name, measured, bar] = [figure.name.clone(), figure.measured_text(), figure.bar_text()];
        table.add_row(
            [name, measured, bar].map(Cell::new).into_iter().chain([reached, Cell::new(&figure.detail)]),
        );
    }
    println!("{table}");
    let mut all = self::table(["measurement", "median", "least", "most"]);
    for (name, spread) in samples.iter() {
        let text = |value: f64| if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") };
        all.add_row([name.to_owned(), text(spread.median), text(spread.min), text(spread.max)]);
    }
    println!("{all}");
}

fn table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(head);
    table
}

/// Writes `NAME.json` into `directory`.
pub(crate) fn write_json(
    directory: &Path,
    name: &str,
    quick: bool,
    rounds: u32,
    figures: &[Figure],
    samples: &Samples,
    failures: &[String],
) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("could not make {}", directory.display()))?;
    let report = Report {
        taken_at: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        cpu: cpu_model()?,
        cpus: std::thread::available_parallelism()?.get(),
        quick,
        rounds,
        figures: figures.iter().map(|figure| Row { figure, reached: figure.reached() }).collect(),
        samples: samples.iter().collect(),
        failures,
    };
    let path = directory.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(&report)?;
    fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))
}

fn cpu_model() -> Result<String> {
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(model.map_or_else(String::new, |(_, name)| name.to_owned()))
}
