//! A running program is attached to, limited, let go and attached to again, and keeps finding what it wrote.
//! Needs root, gcc, Go and
//! a JDK.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::ffi::OsString;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rackmem_e2e::{Process, Rack, c_program, go_program, java_program, target_anonymous_kib};
use rackmem_trace::{Event, FaultKind, Reader};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(120);
const MEMORY_MIB: u64 = 128;

/// Resident memory may lie so much above the limit; it includes the stack and what is on its way.
const ABOVE_LIMIT_KIB: u64 = 8 << 10;

fn patient() -> Process {
    let mut command = Command::new(c_program("patient"));
    let mut process = Process::start(command.arg(MEMORY_MIB.to_string()).stdin(Stdio::null()), LIMIT);
    process.expect_line("ready");
    process
}

/// Lets the program check all of its memory twice.
fn let_check(process: &mut Process) {
    for _ in 0..2 {
        process.signal(Signal::USR1);
        process.expect_line("checked");
    }
}

#[track_caller]
fn wait_for_resident(pid: u32, what: &str, is_reached: impl Fn(u64) -> bool) {
    let started = Instant::now();
    while !is_reached(target_anonymous_kib(pid)) {
        let kib = target_anonymous_kib(pid);
        assert!(started.elapsed() < Duration::from_secs(20), "{kib} KiB are resident, which is not {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn expect_within(pid: u32, local_mib: u64) {
    let what = format!("within the limit of {local_mib} MiB");
    wait_for_resident(pid, &what, |kib| kib <= (local_mib << 10) + ABOVE_LIMIT_KIB);
}

/// What would tell of a pager: threads, mappings by address and name, descriptors, a tracer.
fn traces(pid: u32) -> String {
    let directory = format!("/proc/{pid}");
    let threads = fs::read_dir(format!("{directory}/task")).unwrap().count();
    let maps = fs::read_to_string(format!("{directory}/maps")).unwrap();
    let links = fs::read_dir(format!("{directory}/fd")).unwrap().flatten().map(|fd| fs::read_link(fd.path()));
    let mut links: Vec<_> = links.map(|link| format!("{link:?}")).collect();
    links.sort();
    let smaps = fs::read_to_string(format!("{directory}/smaps")).unwrap();
    // Flags of a mapping under userfaultfd: missing, write-protected, minor.
    let flagged = smaps.lines().filter(|line| line.starts_with("VmFlags:"));
    let registered =
        flagged.filter(|line| line.split(' ').any(|flag| matches!(flag, "um" | "uw" | "ui"))).count();
    let status = fs::read_to_string(format!("{directory}/status")).unwrap();
    let tracer = status.lines().find(|line| line.starts_with("TracerPid")).unwrap_or_default();
    format!("{threads} threads, {registered} registered, {tracer}\n{maps}{links:#?}")
}

#[test]
fn attach_limit_detach_and_attach_again() {
    let rack = Rack::start();
    let mut process = patient();
    let pid = process.pid();
    let before = traces(pid);
    for round in 0..3 {
        rack.attach(pid, 64);
        expect_within(pid, 64);
        let_check(&mut process);
        rack.quick(&["limit", &pid.to_string(), "16MiB"]);
        expect_within(pid, 16);
        let_check(&mut process);
        expect_within(pid, 16);
        let stats = rack.stats(pid);
        let far = stats["far"].as_u64().unwrap();
        assert!(far >= (MEMORY_MIB - 32) << 20, "only {far} bytes are far in round {round}: {stats}");
        rack.quick(&["limit", &pid.to_string(), "256MiB"]);
        let_check(&mut process);
        wait_for_resident(pid, "all of it, which the limit allows", |kib| kib >= (MEMORY_MIB - 2) << 10);
        rack.quick(&["limit", &pid.to_string(), "32MiB"]);
        expect_within(pid, 32);
        rack.quick(&["detach", &pid.to_string()]);
        assert!(target_anonymous_kib(pid) >= (MEMORY_MIB - 1) << 10, "not all of it came home");
        assert_eq!(traces(pid), before, "the detach left traces in round {round}");
        let_check(&mut process);
    }
    process.signal(Signal::TERM);
    assert_eq!(process.finish().status.code(), Some(42));
}

/// A container's processes have other ids inside than outside.
#[test]
fn attach_to_a_program_in_another_pid_namespace() {
    let rack = Rack::start();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(c_program("patient"));
    let mut process = Process::start(command.arg(MEMORY_MIB.to_string()).stdin(Stdio::null()), LIMIT);
    process.expect_line("ready");
    let outside = process.pid();
    let children = fs::read_to_string(format!("/proc/{outside}/task/{outside}/children")).unwrap();
    let pid: u32 = children.trim().parse().unwrap();
    let before = traces(pid);
    rack.attach(pid, 32);
    expect_within(pid, 32);
    let program = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(program, Signal::USR1).unwrap();
    process.expect_line("checked");
    rack.quick(&["detach", &pid.to_string()]);
    assert_eq!(traces(pid), before, "the detach left traces");
}

#[test]
fn what_never_left_is_not_copied() {
    let rack = Rack::start();
    let mut process = patient();
    rack.attach(process.pid(), 512);
    let_check(&mut process);
    let stats = rack.stats(process.pid());
    assert_eq!(stats["far"].as_u64(), Some(0), "{stats}");
    assert_eq!(stats["pages_fetched"].as_u64(), Some(0), "{stats}");
    rack.quick(&["detach", &process.pid().to_string()]);
    let_check(&mut process);
}

/// Attaches to `program` once it is well under way; it has to end as if nothing had happened.
fn attach_in_the_middle(program: &[OsString], local_mib: u64) {
    let rack = Rack::start();
    for delay_ms in [50, 150, 350] {
        let mut command = Command::new(&program[0]);
        let mut process = Process::start(command.args(&program[1..]).stdin(Stdio::null()), LIMIT);
        std::thread::sleep(Duration::from_millis(delay_ms));
        if !process.is_running() {
            // A fast machine; the attach after the first delay is what counts.
            assert!(delay_ms > 50, "the program ended before it could be attached to");
            break;
        }
        rack.attach(process.pid(), local_mib);
        process.finish().expect_success(&format!("{program:?}, attached to after {delay_ms} ms"));
    }
}

#[test]
fn attach_to_a_program_of_many_busy_threads() {
    attach_in_the_middle(&[c_program("threads"), "96".into(), "1".into(), "40".into()], 48);
}

#[test]
fn attach_to_a_program_that_maps_and_unmaps() {
    attach_in_the_middle(&[c_program("churn"), "64".into(), "1".into(), "200".into()], 48);
}

#[test]
fn attach_to_a_go_program() {
    attach_in_the_middle(&[go_program("pages"), "192".into()], 128);
}

#[test]
fn attach_to_a_long_java_program() {
    let mut line = java_program("Pages", 192);
    line.push("120".into());
    attach_in_the_middle(&line, 100);
}

#[test]
fn a_second_attach_is_refused_and_harmless() {
    let rack = Rack::start();
    let mut process = patient();
    let pid = process.pid().to_string();
    rack.attach(process.pid(), 32);
    let mut again = rack.command(["attach", &pid, "--memory-server", rack.address(), "--local", "32MiB"]);
    let again = Process::start(&mut again, LIMIT).finish();
    assert!(!again.status.success() && again.stderr.contains("already"), "{again:?}");
    let_check(&mut process);
    rack.quick(&["detach", &pid]);
    let_check(&mut process);
}

#[test]
fn a_trace_tells_what_happened() {
    let rack = Rack::start();
    let file = rack.directory().join("trace");
    let program = [c_program("fill_check"), "64".into()];
    let options = ["--trace", file.to_str().unwrap()];
    let run = Process::start(&mut rack.run(16, &options, &program), LIMIT).finish();
    run.expect_success("fill_check with a trace");
    // The pager goes on for a moment after the program: it writes the rest.
    let deadline = Instant::now() + LIMIT;
    while rack.quick(&["ps", "--json"]).stdout.trim() != "[]" && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(200));
    let mut reader = Reader::new(fs::File::open(&file).unwrap()).unwrap();
    assert!(reader.header().command.contains("fill_check"), "{:?}", reader.header());
    let (mut far, mut zero, mut evicted, mut started, mut ended) = (0, 0, 0, 0, 0);
    for record in reader.by_ref() {
        match record.unwrap().event {
            Event::Fault { kind: FaultKind::Far, .. } => far += 1,
            Event::Fault { kind: FaultKind::Zero, .. } => zero += 1,
            Event::Fault { .. } | Event::Prefetched { .. } | Event::Discarded { .. } => {}
            Event::Evicted { run, .. } => evicted += run.pages,
            Event::ProcessStarted { .. } => started += 1,
            Event::ProcessEnded => ended += 1,
        }
    }
    // The program writes 64 MiB and reads them five times, three quarters from afar.
    assert!(evicted >= 3 * 48 * 256, "{evicted} pages were evicted");
    assert!(far >= 1000 && zero >= 16, "{far} far faults, {zero} first touches");
    assert_eq!((started, ended), (1, 1), "processes started and ended");
}
