//! `rackmem run` is not noticed: input, output, exit codes, signals, pipelines and exec chains are as without it.
//! Needs root and gcc.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rackmem_e2e::{Case, Ended, Process, Rack, at_every_limit, c_program};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(90);

fn shell(script: &str) -> [&OsStr; 3] {
    ["sh".as_ref(), "-c".as_ref(), script.as_ref()]
}

fn run_shell(script: &str) -> Ended {
    Process::start(&mut Rack::start().run(16, &[], &shell(script)), LIMIT).finish()
}

/// A shell's own memory is small; the programs that it starts have the memory.
fn large_in_a_shell(script: &str) -> Case {
    let script = script.replace("PROGRAM", &c_program("fill_check").to_string_lossy());
    Case::new(64, shell(&script).map(OsString::from)).in_several_processes()
}

at_every_limit! {
    /// The shell becomes the program.
    exec_chain => large_in_a_shell("exec sh -c 'exec env A=1 PROGRAM 64'");
    /// Several large programs at once.
    background => large_in_a_shell("(PROGRAM 32 1 & PROGRAM 32 2 & wait) | sort; echo done");
    /// Large programs, one after the other, with pipes in between.
    pipeline => large_in_a_shell("PROGRAM 32 1 | tr a-z A-Z | sort; (PROGRAM 64 2) | wc -c");
}

#[test]
fn a_pipeline_prints_what_it_prints_without_rackmem() {
    let script = "seq 1 200000 | sort -rn | awk '{ s += $1 * NR } END { print s }'; \
        for i in 1 2 3 4 5; do echo $(echo $i | sed s/^/x/); done; ls / | sort | head -3; echo error >&2";
    let native = Command::new("sh").args(["-c", script]).output().unwrap();
    let managed = run_shell(script);
    assert!(managed.status.success());
    assert_eq!(managed.stdout.as_bytes(), native.stdout);
    assert_eq!(managed.stderr.as_bytes(), native.stderr);
}

#[test]
fn standard_input_is_passed_through() {
    let rack = Rack::start();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut command = rack.run(16, &[], &["sort", "-n"]);
    let process = Process::start(command.stdin(reader), LIMIT);
    drop(command);
    (0..20_000).rev().for_each(|number| writeln!(writer, "{number}").unwrap());
    drop(writer);
    let sorted = process.finish().expect_success("sort");
    assert_eq!(sorted.stdout, (0..20_000).map(|number| format!("{number}\n")).collect::<String>());
}

#[test]
fn arguments_environment_and_directory_are_passed_through() {
    let rack = Rack::start();
    let mut command = rack.run(
        16,
        &[],
        &["sh", "-c", "printf '%s|' \"$0\" \"$@\" \"$E2E\"; pwd", "a b", "", "--local", "*"],
    );
    let ended = Process::start(command.env("E2E", "x y").current_dir("/usr/share"), LIMIT).finish();
    assert_eq!(ended.expect_success("sh").stdout, "a b||--local|*|x y|/usr/share\n");
}

#[test]
fn exit_codes_are_passed_through() {
    for code in [0, 1, 42, 126, 255] {
        assert_eq!(run_shell(&format!("exit {code}")).status.code(), Some(code));
    }
}

#[test]
fn a_program_that_dies_by_a_signal_is_seen_to() {
    for signal in [Signal::TERM, Signal::KILL, Signal::SEGV, Signal::ABORT] {
        let number = signal.as_raw();
        let status = run_shell(&format!("kill -{number} $$")).status;
        assert_eq!(status.signal().or(status.code().map(|code| code - 128)), Some(number), "{status}");
    }
}

#[test]
fn a_program_that_does_not_exist_is_said_not_to() {
    let rack = Rack::start();
    let ended = Process::start(&mut rack.run(16, &[], &["/no/such/program"]), LIMIT).finish();
    assert_eq!(ended.status.code(), Some(127));
    assert!(ended.stderr.contains("/no/such/program"), "{}", ended.stderr);
}

#[test]
fn signals_reach_the_program() {
    let rack = Rack::start();
    let program = [c_program("patient"), "64".into()];
    let mut process = Process::start(&mut rack.run(16, &[], &program), LIMIT);
    process.expect_line("ready");
    for _ in 0..3 {
        process.signal(Signal::USR1);
        process.expect_line("checked");
    }
    process.signal(Signal::TERM);
    let ended = process.finish();
    assert_eq!(ended.status.code(), Some(42), "{}", ended.stderr);
    assert!(ended.stdout.ends_with("ended\n"), "{}", ended.stdout);
}

#[test]
fn a_running_program_that_is_killed_is_gone() {
    let rack = Rack::start();
    let program = [c_program("patient"), "64".into()];
    let mut process = Process::start(rack.run(16, &[], &program).stdin(Stdio::null()), LIMIT);
    process.expect_line("ready");
    process.signal(Signal::INT);
    let status = process.finish().status;
    assert_eq!(
        status.signal().or(status.code().map(|code| code - 128)),
        Some(Signal::INT.as_raw()),
        "{status}"
    );
    assert_eq!(rack.quick(&["ps", "--json"]).stdout.trim(), "[]");
}
