//! The programs of `tests/programs`, built once and found again by a hash of their source.

use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::Process;

/// A compiler has to end within this time; Go's first run compiles its library.
const COMPILE: Duration = Duration::from_secs(240);

/// Path of the tool `name`; panics with the Debian package that has it if it is not installed.
#[track_caller]
pub fn required(name: &str) -> PathBuf {
    let package = match name {
        "go" => "golang-go",
        "java" | "javac" => "default-jdk-headless",
        "redis-server" | "redis-benchmark" => "redis-server redis-tools",
        name => name,
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("this test needs {name}: apt-get install {package}"))
}

/// `tests/programs/NAME.c`, linked statically.
#[track_caller]
pub fn c_program(name: &str) -> OsString {
    let source = source(&format!("{name}.c"));
    let built = build(name, &[&source, &self::source("pages.h")], |out| {
        let mut command = Command::new(required("gcc"));
        command.args(["-O2", "-static", "-pthread", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-o"]);
        command.arg(out.join(name)).arg(&source);
        command
    });
    built.join(name).into()
}

/// `tests/programs/NAME.go`.
#[track_caller]
pub fn go_program(name: &str) -> OsString {
    let source = source(&format!("{name}.go"));
    let built = build(name, &[&source], |out| {
        let mut command = Command::new(required("go"));
        command.args(["build", "-o"]).arg(out.join(name)).arg(&source);
        command.env("GOFLAGS", "").env("GOCACHE", scratch().join("go-cache"));
        command
    });
    built.join(name).into()
}

/// `tests/programs/NAME.java` as a command line for the class `NAME`, with `heap_mib` MiB of heap.
#[track_caller]
pub fn java_program(name: &str, heap_mib: u64) -> Vec<OsString> {
    let source = source(&format!("{name}.java"));
    let classes = build(name, &[&source], |out| {
        let mut command = Command::new(required("javac"));
        command.arg("-d").arg(out).arg(&source);
        command
    });
    let mut line = vec![required("java").into(), format!("-Xmx{heap_mib}m").into()];
    line.extend(["-XX:+UseSerialGC".into(), "-cp".into(), classes.into(), name.into()]);
    line
}

/// `tests/programs/NAME.py` as a command line. The interpreter itself, not a shim that only starts it.
#[track_caller]
pub fn python_program(name: &str) -> Vec<OsString> {
    let mut command = Command::new(required("python3"));
    command.args(["-c", "import sys; print(sys.executable)"]).stdin(Stdio::null());
    let interpreter = Process::start(&mut command, COMPILE).finish().expect_success("python3").stdout;
    vec![interpreter.trim().into(), source(&format!("{name}.py")).into()]
}

fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(file)
}

/// A directory that survives the run: built programs are used again.
fn scratch() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own path");
    test.ancestors().nth(3).expect("tests are built into target/PROFILE/deps").join("e2e-programs")
}

/// The directory with what `compile` makes of `sources`. Tests run side by side, so it appears whole or not at all.
#[track_caller]
fn build(name: &str, sources: &[&Path], compile: impl FnOnce(&Path) -> Command) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    for source in sources {
        fs::read(source)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", source.display()))
            .hash(&mut hasher);
    }
    let scratch = scratch();
    let built = scratch.join(format!("{name}-{:016x}", hasher.finish()));
    if built.is_dir() {
        return built;
    }
    fs::create_dir_all(&scratch).expect("the target directory is writable");
    let fresh = tempfile::tempdir_in(&scratch).expect("the target directory is writable").keep();
    let compiled = Process::start(compile(&fresh).stdin(Stdio::null()), COMPILE).finish();
    compiled.expect_success(&format!("building {name}"));
    if fs::rename(&fresh, &built).is_err() {
        // Another test was faster.
        let _ = fs::remove_dir_all(&fresh);
    }
    assert!(built.is_dir(), "{} was not built", built.display());
    built
}
