//! `cargo xtask setup`: the programs that tests, benchmarks and the demonstration run beside rackmem. Only what is missing
//! is installed: from the distribution, and cargo's own tools by cargo. A service that a package starts is left alone:
//! everything here takes ports of its own.

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

const NEEDS: [Need; 21] = [
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
    Need { program: "qemu-system-x86_64", package: "qemu-system-x86" },
    Need { program: "qemu-img", package: "qemu-utils" },
    Need { program: "virsh", package: "libvirt-clients" },
    Need { program: "libvirtd", package: "libvirt-daemon-system" },
    Need { program: "setpriv", package: "util-linux" },
    Need { program: "taskset", package: "util-linux" },
    Need { program: "unshare", package: "util-linux" },
    Need { program: "losetup", package: "mount" },
    Need { program: "swapon", package: "mount" },
];

/// What statically linked C programs need beside gcc: the library, and its package.
const STATIC_LIBC: (&str, &str) = ("libc.a", "libc6-dev");

/// Where programs for the administrator lie; they are not in every user's `PATH`.
const ADMIN_DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Installs whatever is missing of all that anything in this repository runs.
pub(crate) fn everything() -> Result<()> {
    for_tests()?;
    cargo_tool("deny")
}

/// Installs what is missing for the tests. `cargo deny` is not among it: it takes minutes to build.
pub(crate) fn for_tests() -> Result<()> {
    programs(|_| true)?;
    cargo_tool("nextest")
}

/// Installs what is missing of these programs.
pub(crate) fn only(names: &[&str]) -> Result<()> {
    programs(|need| names.contains(&need.program))
}

/// Whether cargo has this subcommand.
pub(crate) fn has_cargo_tool(name: &str) -> Result<bool> {
    Ok(cargo()?.args([name, "--version"]).output().is_ok_and(|output| output.status.success()))
}

fn programs(is_wanted: impl Fn(&Need) -> bool) -> Result<()> {
    let wanted: Vec<&Need> = NEEDS.iter().filter(|need| is_wanted(need)).collect();
    let missing = || -> Vec<(&str, &str)> {
        let programs = wanted.iter().filter(|need| !is_there(need.program));
        let mut missing: Vec<_> = programs.map(|need| (need.program, need.package)).collect();
        if wanted.iter().any(|need| need.program == "gcc") && !has_static_libc() {
            missing.push(STATIC_LIBC);
        }
        missing
    };
    // Twice: a package that is installed may displace an older one of another version that was there.
    for _ in 0..2 {
        match missing().as_slice() {
            [] => return Ok(()),
            missing => install(missing)?,
        }
    }
    match missing().as_slice() {
        [] => Ok(()),
        still => bail!("installed, but still missing: {}", join(still.iter().map(|(name, _)| *name))),
    }
}

/// gcc names the place of a library that it finds, and only the name of one that it does not.
fn has_static_libc() -> bool {
    let answer = Command::new("gcc").arg(format!("-print-file-name={}", STATIC_LIBC.0)).output();
    answer.is_ok_and(|answer| answer.stdout.starts_with(b"/"))
}

fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(ADMIN_DIRECTORIES.map(Into::into));
    directories.into_iter().any(|directory| directory.join(program).is_file())
}

fn install(missing: &[(&str, &str)]) -> Result<()> {
    let names = join(missing.iter().map(|(name, _)| *name));
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    if !is_debian() {
        bail!("this is missing, please install it: {names}");
    }
    if !is_root()? {
        bail!("this is missing: {names}. As root: apt-get install {}", packages.join(" "));
    }
    eprintln!("missing: {names}");
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["--quiet", "--yes"]);
        command
    };
    commands::run(apt().arg("update"))?;
    commands::run(apt().args(["install", "--no-install-recommends"]).args(packages))
}

fn cargo_tool(name: &str) -> Result<()> {
    if has_cargo_tool(name)? {
        return Ok(());
    }
    commands::run(cargo()?.args(["install", "--locked", &format!("cargo-{name}")]))
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
