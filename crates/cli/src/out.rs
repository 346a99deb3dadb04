//! What commands print. Standard output may be a full disk: that is an error like any other. A reader that goes away ends the command
//! as it ends other tools (see `args.rs`).

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

/// Prints text as it is.
pub(crate) fn text(text: impl Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}").and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Prints a line.
pub(crate) fn line(line: impl Display) -> anyhow::Result<()> {
    text(format_args!("{line}\n"))
}

/// Prints a value as JSON, for people and programs.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Tells a person something that is no result. Nobody has to read it.
pub(crate) fn note(note: impl Display) {
    let _ = writeln!(io::stderr(), "{note}");
}
