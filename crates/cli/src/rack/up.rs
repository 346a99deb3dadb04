//! `rackmem rack up FILE`: builds the rack of a rack file, or what is missing of it.

use std::path::PathBuf;

use clap::Args;
use rackmem_emulate::{EmulateError, Programs, Racks};
use rackmem_rack::Name;

use crate::out;
use crate::spawn::myself;

/// Name of a rack that was given none.
pub(super) const NAME: &str = "rack";

/// Build the rack of a rack file; what stands of it already is left as it is
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The rack file
    file: PathBuf,
    /// What to call it; racks of different names stand side by side
    #[arg(long, default_value = NAME)]
    name: Name,
}

pub(super) fn run(racks: &Racks, arguments: &Arguments) -> anyhow::Result<()> {
    let source = crate::rack_file::read(&arguments.file)?;
    let programs = Programs { rackmem: myself() };
    let built = racks.up(&arguments.name, &source, &programs);
    let (standing, started) = built.map_err(|error| match error {
        mistake @ (EmulateError::File(_) | EmulateError::TooMany { .. } | EmulateError::Packet(_)) => {
            anyhow::Error::from(mistake).context(arguments.file.display().to_string())
        }
        error => error.into(),
    })?;
    let layout = &standing.layout;
    let (bricks, switches) = (layout.bricks.len(), layout.switches.len());
    // Nobody has to read this line for the rack to stand.
    let _ = out::line(format_args!(
        "rack '{}': {bricks} bricks, {switches} switches; {started} programs started",
        layout.name
    ));
    Ok(())
}
