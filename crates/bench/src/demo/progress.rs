//! What the demonstration shows while it runs: a bar for each step on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// Without a terminal, a line appears this often.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// One step on its way.
#[derive(Debug)]
pub(crate) struct Step {
    name: &'static str,
    bar: Option<ProgressBar>,
    done: u64,
    total: u64,
    started: Instant,
    last_line: Instant,
}

impl Step {
    /// Begins a step that consists of `total` parts.
    pub(crate) fn begin(name: &'static str, total: u64) -> Result<Self> {
        let now = Instant::now();
        let bar = if std::io::stderr().is_terminal() {
            // Two lines: what is going on does not fit beside the bar on a terminal of 80 columns.
            let style = ProgressStyle::with_template("{prefix:38} {bar:34} {percent:>3} %\n  {wide_msg}")?;
            Some(ProgressBar::new(total).with_style(style).with_prefix(name))
        } else {
            eprintln!("{name} …");
            None
        };
        Ok(Self { name, bar, done: 0, total, started: now, last_line: now })
    }

    /// `parts` more are done; `note` says what is going on.
    pub(crate) fn advance(&mut self, parts: u64, note: &str) {
        self.reach(self.done + parts, note);
    }

    /// So many parts are done by now.
    pub(crate) fn reach(&mut self, done: u64, note: &str) {
        self.done = done;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
            bar.set_message(note.to_owned());
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            eprintln!("{}: {} %  {note}", self.name, self.done * 100 / self.total.max(1));
        }
    }

    /// Ends the step; gives the time it took.
    pub(crate) fn end(self, result: &str) -> Duration {
        let took = self.started.elapsed();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{:38} {:>5.1} s  {result}", self.name, took.as_secs_f64());
        took
    }
}
