//! Running other programs, cargo first of all.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The repository's root.
pub(crate) fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in no workspace")
}

/// The cargo that runs this program, in the repository's root.
pub(crate) fn cargo() -> Result<Command> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root()?);
    Ok(command)
}

/// Runs `command`, shows it, and takes a failure for an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    eprintln!("+ {line}");
    let status = command.status().with_context(|| format!("could not start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Becomes `command`. So Ctrl-C meets it alone, and the shell waits until it has taken back what it did.
pub(crate) fn become_program(command: &mut Command) -> Result<()> {
    eprintln!("+ {}", shown(command));
    let error = command.exec();
    Err(error).with_context(|| format!("could not start `{}`", shown(command)))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Builds the `rackmem` program and the benchmarks as a user gets them.
pub(crate) fn build_release() -> Result<()> {
    run(cargo()?.args(["build", "--release", "--package", "rackmem-cli", "--package", "rackmem-bench"]))
}

/// Where a program of [`build_release`] lies.
pub(crate) fn release_program(name: &str) -> Result<PathBuf> {
    program("release", name)
}

/// Where a program of the workspace lies that was built with the `dev` profile.
pub(crate) fn dev_program(name: &str) -> Result<PathBuf> {
    program("debug", name)
}

/// This program lies in the same target directory.
fn program(profile: &str, name: &str) -> Result<PathBuf> {
    let own = env::current_exe()?;
    let target = own.parent().and_then(Path::parent).context("xtask lies in no target directory")?;
    Ok(target.join(profile).join(name))
}
