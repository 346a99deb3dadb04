//! Where the pages go: over every transport, over several memory servers, with every kernel feature that is not on all
//! kernels switched off, and what happens when a memory server or the pager is killed. Needs root and gcc.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rackmem_e2e::{Case, Process, Rack, c_program, has_ended};
use rustix::process::{Pid, Signal, kill_process};

const LIMIT: Duration = Duration::from_secs(90);

fn case(name: &str, memory_mib: u64) -> Case {
    Case::new(memory_mib, [c_program(name), OsString::from(memory_mib.to_string())]).in_several_processes()
}

#[test]
fn pages_are_striped_over_two_memory_servers() {
    case("fill_check", 160).with_options(&["--extent", "8MiB"]).check_on(&Rack::start_two(), 25);
}

#[test]
fn pages_go_over_a_unix_socket() {
    case("fill_check", 128).check_on(&Rack::start_local("unix"), 25);
}

#[test]
fn pages_go_through_shared_memory() {
    case("fill_check", 128).check_on(&Rack::start_local("shm"), 25);
}

/// The programs that ask most of the pager, with a kernel feature left unused.
fn check_without(options: &'static [&'static str]) {
    let rack = Rack::start();
    for (name, memory_mib) in [("fill_check", 96), ("threads", 96), ("fork_tree", 32), ("spawn", 64)] {
        case(name, memory_mib).with_options(options).check_on(&rack, 25);
    }
}

#[test]
fn a_kernel_without_move_is_enough() {
    check_without(&["--without", "move"]);
}

#[test]
fn churn_on_a_kernel_without_move() {
    case("churn", 64).with_options(&["--without", "move"]).check_on(&Rack::start(), 25);
}

/// A thread that waits for a page within a system call cannot be stopped, and without move nothing leaves before all stand
/// still: it gets its page although the limit is reached.
#[test]
fn system_calls_on_a_kernel_without_move() {
    case("system_calls", 64).with_options(&["--without", "move"]).check_on(&Rack::start(), 25);
}

#[test]
fn a_kernel_with_none_of_the_newer_features_is_enough() {
    check_without(&["--without", "move", "--without", "poison"]);
}

/// A program with less far memory than it needs is above its limit; it gets more, from another memory server, and notices nothing.
/// Later the first memory server goes, and takes nothing with it.
#[test]
fn far_memory_comes_while_a_program_runs() {
    const LOCAL_MIB: u64 = 16;
    let rack = Rack::start_two();
    let (first, second) = rack.address().split_once(',').unwrap();
    let program = [c_program("patient"), "64".into()];
    let options = ["--far-max", "16MiB", "--extent", "4MiB", "--local", "16MiB", "--"];
    let mut command = rack.command(["run", "--memory-server", first]);
    let mut process = Process::start(command.args(options).args(&program), LIMIT);
    process.expect_line("ready");
    let pid = rack.target();
    let local = || rack.stats(pid)["local"].as_u64().unwrap() >> 20;
    assert!(local() >= 40, "it was given no more than 16 MiB far: {} MiB local", local());
    let lend = |servers: &[&str], options: &[&str]| {
        let pid = pid.to_string();
        let servers = servers.iter().flat_map(|server| ["--memory-server", server]);
        let line: Vec<&str> =
            ["lend", &pid].into_iter().chain(servers).chain(options.iter().copied()).collect();
        Process::start(&mut rack.command(line), LIMIT).finish()
    };
    let refused = |servers: &[&str], options: &[&str], why: &str| {
        let ended = lend(servers, options);
        assert!(!ended.status.success() && ended.stderr.contains(why), "{servers:?}: {ended:?}");
    };
    refused(&[first, "127.0.0.1:1"], &[], "no memory server listens");
    lend(&[first, second], &["--far-max", "128MiB"]).expect_success("lend");
    let begun = std::time::Instant::now();
    while local() > LOCAL_MIB {
        assert!(begun.elapsed() < Duration::from_secs(20), "it stays above its limit: {} MiB", local());
        std::thread::sleep(Duration::from_millis(20));
    }
    process.signal(Signal::USR1);
    process.expect_line("checked");
    let stats = rack.stats(pid);
    let used = |place: usize| stats["servers"][place]["used"].as_u64().unwrap();
    assert!(used(0) > 0 && used(1) > 0, "{stats}");
    // A successor finds what lies on the server that came later.
    let pager = Pid::from_raw(stats["pager_pid"].as_i64().unwrap().try_into().unwrap()).unwrap();
    kill_process(pager, Signal::KILL).unwrap();
    while !has_ended(pager.as_raw_nonzero().get().try_into().unwrap()) {
        std::thread::sleep(Duration::from_millis(5));
    }
    rack.attach(pid, LOCAL_MIB);
    process.signal(Signal::USR1);
    process.expect_line("checked");
    // The first one goes: what lies there is moved, within the local limit.
    lend(&[second], &[]).expect_success("lend");
    assert!(local() <= LOCAL_MIB, "{} MiB local", local());
    let stats = rack.stats(pid);
    assert_eq!((stats["servers"].as_array().unwrap().len(), &stats["pages_lost"]), (1, &0.into()), "{stats}");
    rack.kill_server(0);
    for _ in 0..2 {
        process.signal(Signal::USR1);
        process.expect_line("checked");
    }
    process.signal(Signal::TERM);
    let ended = process.finish();
    assert_eq!(ended.status.code(), Some(42), "{ended:?}");
}

#[test]
fn a_lost_memory_server_means_sigbus_and_never_wrong_content() {
    let mut rack = Rack::start();
    let program = [c_program("patient"), "64".into()];
    let mut process = Process::start(&mut rack.run(16, &["--lost-after", "2"], &program), LIMIT);
    process.expect_line("ready");
    process.signal(Signal::USR1);
    process.expect_line("checked");
    rack.kill_servers();
    let ended = process.finish();
    let bus = Signal::BUS.as_raw();
    assert!(!ended.stderr.contains("found"), "it read wrong content: {}", ended.stderr);
    let number = ended.status.signal().or(ended.status.code().map(|code| code - 128));
    assert_eq!(number, Some(bus), "{}\n{}", ended.status, ended.stderr);
}

#[test]
fn a_killed_pager_leaves_the_program_waiting_and_never_with_wrong_content() {
    let rack = Rack::start();
    let program = [c_program("patient"), "64".into()];
    let mut process = Process::start(&mut rack.run(16, &[], &program), LIMIT);
    process.expect_line("ready");
    process.signal(Signal::USR1);
    process.expect_line("checked");
    let rows: serde_json::Value = serde_json::from_str(&rack.quick(&["ps", "--json"]).stdout).unwrap();
    let pid = |field: &str| Pid::from_raw(rows[0][field].as_i64().unwrap().try_into().unwrap()).unwrap();
    let (target, pager) = (pid("pid"), pid("pager_pid"));
    kill_process(pager, Signal::KILL).unwrap();
    // It touches far pages all the time, so within this time it waits for one; had it gone on, it would have noticed.
    std::thread::sleep(Duration::from_secs(2));
    assert!(process.is_running(), "the program ended: {:?}", process.finish());
    kill_process(target, Signal::KILL).unwrap();
    let ended = process.finish();
    assert!(!ended.stderr.contains("found"), "it read wrong content: {}", ended.stderr);
    assert_eq!(
        ended.status.signal().or(ended.status.code().map(|code| code - 128)),
        Some(Signal::KILL.as_raw())
    );
}
