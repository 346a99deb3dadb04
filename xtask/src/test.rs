//! `cargo xtask test`: everything that has to hold. The order is from quick to slow.

use std::time::Instant;

use anyhow::Result;

use crate::commands::{self, build_release, cargo, release_program};
use crate::setup;

/// Runs it; `nextest` are further arguments of `cargo nextest run`.
pub(crate) fn run(nextest: &[String]) -> Result<()> {
    let start = Instant::now();
    commands::run(cargo()?.args(["fmt", "--all", "--check"]))?;
    commands::run(
        cargo()?
            .args(["clippy", "--workspace", "--all-targets", "--locked"])
            .args(["--", "--deny", "warnings"]),
    )?;
    licences()?;
    // The end-to-end tests drive the program as a user gets it.
    build_release()?;
    commands::run(cargo()?.args(["test", "--workspace", "--locked", "--doc"]))?;
    commands::run(
        cargo()?
            .args(["nextest", "run", "--workspace", "--locked"])
            .args(nextest)
            .env("RACKMEM_BIN", release_program("rackmem")?),
    )?;
    eprintln!("all of it took {} s", start.elapsed().as_secs());
    Ok(())
}

/// Checks what comes into the build, but for advisories, whose database is fetched from the network.
fn licences() -> Result<()> {
    if !setup::has_cargo_tool("deny")? {
        eprintln!(
            "NOT CHECKED: licences and banned crates, since cargo-deny is missing (cargo xtask setup installs it)"
        );
        return Ok(());
    }
    let quiet = ["--hide-inclusion-graph", "--allow", "duplicate"];
    commands::run(cargo()?.args(["deny", "check"]).args(quiet).args(["licenses", "bans", "sources"]))
}
