//! Packages of the distribution, downloaded and unpacked beside the running system: nothing is installed, no root needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::commands;

/// The package that pulls in the newest kernel made for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";

/// Name of the present kernel package, for example `linux-image-6.1.0-56-cloud-amd64`.
pub(super) fn kernel_name() -> Result<String> {
    let text = output(Command::new("apt-cache").args(["show", "--no-all-versions", KERNEL]))
        .with_context(|| format!("{KERNEL} is not known here: on another system than Debian, give a kernel package by --kernel-package"))?;
    kernel_dependency(&text)
        .map(str::to_owned)
        .with_context(|| format!("{KERNEL} names no kernel package that it depends on"))
}

fn kernel_dependency(description: &str) -> Option<&str> {
    let depends = description.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let names = depends.split(',').filter_map(|entry| entry.split_whitespace().next());
    names.into_iter().find(|name| name.starts_with("linux-image-"))
}

/// Downloads package `name` and unpacks it below `cache`, once. The directory with its files.
pub(super) fn unpacked(cache: &Path, name: &str) -> Result<PathBuf> {
    let place = cache.join(name);
    if place.is_dir() {
        return Ok(place);
    }
    let download = tempfile::tempdir_in(cache)?;
    // Apt's own user may not write here. As root that is a warning for each package; this says that it need not.
    commands::run(
        Command::new("apt-get")
            .args(["--quiet", "-o", "APT::Sandbox::User=root", "download", name])
            .current_dir(download.path()),
    )?;
    let archive = fs::read_dir(download.path())?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get downloaded no package {name}"))?;
    unpack(&archive, &place)
}

/// Unpacks a package's file to `place`, which appears complete or not at all.
pub(super) fn unpack(archive: &Path, place: &Path) -> Result<PathBuf> {
    let beside = place.parent().context("a package is unpacked below a directory")?;
    let work = tempfile::tempdir_in(beside)?;
    let files = work.path().join("files");
    commands::run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&files))?;
    match fs::rename(&files, place) {
        // Somebody else unpacked the same package meanwhile.
        Err(_) if place.is_dir() => {}
        other => other.with_context(|| format!("could not move the package to {}", place.display()))?,
    }
    Ok(place.to_owned())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_what_the_package_depends_on() {
        let text = "Package: linux-image-cloud-amd64\nDepends: linux-base (>= 4), linux-image-6.1.0-9-cloud-amd64 (= 6.1.2-1)\n";
        assert_eq!(kernel_dependency(text), Some("linux-image-6.1.0-9-cloud-amd64"));
        assert_eq!(kernel_dependency("Package: x\n"), None);
        assert_eq!(kernel_dependency("Depends: libc6\n"), None);
    }
}
