//! `cargo xtask setup`: the programs that tests and benchmarks run beside rackmem. Only what is missing is installed, only
//! from the distribution. A service that a package starts is left alone: tests and benchmarks take ports of their own.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::commands::{self, cargo};

/// A program that has to be there, and its package in Debian and Ubuntu.
struct Need {
    program: &'static str,
    package: &'static str,
}

const NEEDS: [Need; 16] = [
    Need { program: "redis-server", package: "redis-server" },
    Need { program: "redis-benchmark", package: "redis-tools" },
    Need { program: "memcached", package: "memcached" },
    Need { program: "stress-ng", package: "stress-ng" },
    Need { program: "python3", package: "python3" },
    Need { program: "go", package: "golang-go" },
    Need { program: "javac", package: "default-jdk-headless" },
    Need { program: "sqlite3", package: "sqlite3" },
    Need { program: "gcc", package: "gcc" },
    Need { program: "nbdkit", package: "nbdkit" },
    Need { program: "nbdfuse", package: "nbdfuse" },
    Need { program: "fusermount", package: "fuse3" },
    Need { program: "taskset", package: "util-linux" },
    Need { program: "unshare", package: "util-linux" },
    Need { program: "losetup", package: "mount" },
    Need { program: "swapon", package: "mount" },
];

/// A C library that statically linked programs need beside gcc.
const STATIC_LIBC: &str = "libc6-dev";

/// Where programs for the administrator lie; they are not in every user's `PATH`.
const ADMIN_DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Installs what is missing.
pub(crate) fn run() -> Result<()> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !is_there(need.program)).collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    nextest()
}

fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(ADMIN_DIRECTORIES.map(Into::into));
    directories.into_iter().any(|directory| directory.join(program).is_file())
}

fn install(missing: &[&Need]) -> Result<()> {
    let programs = join(missing.iter().map(|need| need.program));
    let mut packages: Vec<&str> = missing.iter().map(|need| need.package).chain([STATIC_LIBC]).collect();
    packages.sort_unstable();
    packages.dedup();
    if !is_debian() {
        bail!("these programs are missing, please install them: {programs}");
    }
    if !is_root()? {
        bail!("these programs are missing: {programs}. As root: apt-get install {}", packages.join(" "));
    }
    eprintln!("missing: {programs}");
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["--quiet", "--yes"]);
        command
    };
    commands::run(apt().arg("update"))?;
    commands::run(apt().args(["install", "--no-install-recommends"]).args(packages))?;
    let still: Vec<&str> =
        missing.iter().map(|need| need.program).filter(|program| !is_there(program)).collect();
    if !still.is_empty() {
        bail!("installed, but still missing: {}", join(still));
    }
    Ok(())
}

fn nextest() -> Result<()> {
    if is_there("cargo-nextest")
        || cargo()?.args(["nextest", "--version"]).output().is_ok_and(|o| o.status.success())
    {
        return Ok(());
    }
    commands::run(cargo()?.args(["install", "--locked", "cargo-nextest"]))
}

fn join<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().collect::<Vec<_>>().join(", ")
}

fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && is_there("apt-get")
}

fn is_root() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).context("/proc without a user id")?;
    Ok(uid.split_whitespace().nth(1) == Some("0"))
}
