//! `cargo xtask test`: everything that has to hold. The order is from quick to slow.

use std::time::Instant;

use anyhow::Result;

use crate::commands::{self, build_release, cargo, dev_program, release_program};
use crate::setup;

/// Runs it, the end-to-end tests with the `release` build or with that of the other tests; `nextest` are further arguments of
/// `cargo nextest run`.
pub(crate) fn run(release: bool, nextest: &[String]) -> Result<()> {
    let start = Instant::now();
    commands::run(cargo()?.args(["fmt", "--all", "--check"]))?;
    commands::run(
        cargo()?
            .args(["clippy", "--workspace", "--all-targets", "--locked"])
            .args(["--", "--deny", "warnings"]),
    )?;
    // What a build without its optional parts consists of.
    commands::run(
        cargo()?
            .args(["clippy", "--package", "rackmem-cli", "--no-default-features", "--locked"])
            .args(["--", "--deny", "warnings"]),
    )?;
    licences()?;
    let program = if release {
        build_release()?;
        release_program("rackmem")?
    } else {
        commands::run(cargo()?.args(["build", "--workspace", "--locked"]))?;
        dev_program("rackmem")?
    };
    commands::run(cargo()?.args(["test", "--workspace", "--locked", "--doc"]))?;
    commands::run(
        cargo()?
            .args(["nextest", "run", "--workspace", "--locked"])
            .args(nextest)
            .env("RACKMEM_BIN", program),
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
