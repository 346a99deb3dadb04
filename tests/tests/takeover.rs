//! The pager is killed, again and again and at any moment, and each time another one goes on: every page still has the
//! last version that was written. Needs root, Linux 6.9, gcc and redis-server.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rackmem_e2e::{Process, Rack, Redis, c_program, free_address, has_ended, required};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(240);

/// Pagers killed in each test, unless the program ends before.
const KILLS: u64 = 50;

/// Delays that look random and are the same in each run.
struct Delays(u64);

impl Delays {
    fn next(&mut self, below_ms: u64) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_micros((self.0 >> 33) % (below_ms * 1000))
    }
}

/// The target and its pager, as `ps` tells; `None` when there is none.
fn target(rack: &Rack) -> Option<(u32, u32)> {
    let rows: Value = serde_json::from_str(&rack.quick(&["ps", "--json"]).stdout).unwrap();
    let number = |field: &str| rows[0][field].as_u64().map(|pid| pid as u32);
    Some((number("pid")?, number("pager_pid")?))
}

/// Kills a pager; returns when its last thread is gone, and with it all that it held.
fn kill(pid: u32) {
    let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
    while !has_ended(pid) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Has another pager go on. `None`: the target has ended. Else how long that took, as the successor says, in µs.
#[track_caller]
fn take_over(rack: &Rack, pid: u32, local_mib: u64) -> Option<u64> {
    let (pid, local) = (pid.to_string(), format!("{local_mib}MiB"));
    let arguments = ["attach", &pid, "--memory-server", rack.address(), "--local", &local];
    let ended = Process::start(&mut rack.command(arguments), LIMIT).finish();
    if !ended.status.success() {
        // Give the end of the target time to show everywhere.
        std::thread::sleep(Duration::from_millis(200));
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{}{}", ended.stdout, ended.stderr);
        return None;
    }
    let within = ended.stdout.split("within ").nth(1).and_then(|rest| rest.split(' ').next());
    Some(within.unwrap_or_else(|| panic!("not taken over: {}", ended.stdout)).parse().unwrap())
}

/// Kills pager after pager while `process` runs; gives how often.
#[track_caller]
fn harass(rack: &Rack, process: &mut Process, local_mib: u64, seed: u64, mut each: impl FnMut(u64)) -> u64 {
    let mut delays = Delays(seed);
    let mut took = Vec::new();
    while took.len() < KILLS as usize && process.is_running() {
        std::thread::sleep(delays.next(150));
        let Some((pid, pager)) = target(rack) else { break };
        kill(pager);
        std::thread::sleep(delays.next(20));
        let Some(us) = take_over(rack, pid, local_mib) else { break };
        took.push(us);
        each(took.len() as u64);
    }
    took.sort_unstable();
    eprintln!(
        "{} pagers killed; µs until the target goes on: median {:?}, most {:?}",
        took.len(),
        took.get(took.len() / 2),
        took.last()
    );
    took.len() as u64
}

/// A program that has to end as if nothing had happened, however many pagers are killed meanwhile.
#[track_caller]
fn check(program: &[OsString], local_mib: u64, least: u64) {
    let rack = Rack::start();
    let mut process = Process::start(&mut rack.run(local_mib, &[], program), LIMIT);
    let begun = Instant::now();
    while target(&rack).is_none() && begun.elapsed() < Duration::from_secs(5) {}
    let kills = harass(&rack, &mut process, local_mib, 7, |_| {});
    process.finish().expect_success(&format!("{program:?} under {kills} pagers that were killed"));
    assert!(kills >= least, "only {kills} pagers were killed: the program ended too soon");
}

#[test]
fn root_a_program_that_checks_all_the_time() {
    let rack = Rack::start();
    let program = [c_program("patient"), "64".into()];
    let mut process = Process::start(&mut rack.run(16, &[], &program), LIMIT);
    process.expect_line("ready");
    let kills = harass(&rack, &mut process, 16, 1, |_| {});
    assert_eq!(kills, KILLS);
    for _ in 0..2 {
        process.signal(Signal::USR1);
        process.expect_line("checked");
    }
    let (pid, _) = target(&rack).unwrap();
    let stats = rack.stats(pid);
    assert_eq!(stats["pages_lost"].as_u64(), Some(0), "{stats}");
    assert!(stats["far"].as_u64().unwrap() > 32 << 20, "{stats}");
    // And the last of them lets go as the first would have.
    rack.quick(&["detach", &pid.to_string()]);
    process.signal(Signal::USR1);
    process.expect_line("checked");
    process.signal(Signal::TERM);
    assert_eq!(process.finish().status.code(), Some(42));
}

#[test]
fn root_a_program_that_fills_and_overwrites() {
    check(&[c_program("fill_check"), "192".into()], 32, 3);
}

#[test]
fn root_a_program_of_many_threads() {
    check(&[c_program("threads"), "96".into(), "1".into(), "20".into()], 32, 10);
}

#[test]
fn root_a_tree_of_processes() {
    for round in 0..4 {
        check(&[c_program("fork_tree"), "32".into(), round.to_string().into()], 12, 1);
    }
}

/// Kills a pager in the moment in which it has read that its target forked, and has not done anything about it. `false`: it ended
/// before that.
fn kill_at_a_fork(pager: u32) -> bool {
    const FORK: u8 = 0x13; // UFFD_EVENT_FORK
    const MESSAGE: usize = 32;
    let tasks = std::fs::read_dir(format!("/proc/{pager}/task")).into_iter().flatten().flatten();
    let is_fault = |path: &std::path::Path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "fault")
    };
    let mut threads = tasks.filter(|task| is_fault(&task.path()));
    let Some(thread) = threads.next().and_then(|task| task.file_name().to_str()?.parse().ok()) else {
        return false;
    };
    let thread = nix::unistd::Pid::from_raw(thread);
    if ptrace::seize(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD).is_err() {
        return false;
    }
    ptrace::interrupt(thread).unwrap();
    loop {
        match waitpid(thread, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::PtraceSyscall(_)) => {
                let registers = ptrace::getregs(thread).unwrap();
                // Where a call begins, there is no result yet.
                let bytes = (registers.rax as i64).max(0) as usize;
                if registers.orig_rax == libc::SYS_read as u64 && bytes > 0 && bytes.is_multiple_of(MESSAGE) {
                    let mut messages = vec![0; bytes];
                    let from = RemoteIoVec { base: registers.rsi as usize, len: bytes };
                    process_vm_readv(thread, &mut [std::io::IoSliceMut::new(&mut messages)], &[from])
                        .unwrap();
                    if messages.chunks(MESSAGE).any(|message| message[0] == FORK) {
                        kill_process(Pid::from_raw(pager.cast_signed()).unwrap(), Signal::KILL).unwrap();
                        // Whoever traces a thread has to see it end.
                        while waitpid(thread, Some(WaitPidFlag::__WALL)).is_ok_and(|status| {
                            !matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..))
                        }) {}
                        kill(pager);
                        return true;
                    }
                }
            }
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => return false,
            Ok(_) => {}
        }
        if ptrace::syscall(thread, None).is_err() {
            return false;
        }
    }
}

#[test]
fn root_a_child_whose_fork_was_just_read() {
    // How many forks a program has left when a pager is caught at one is a matter of the machine's speed.
    const KILLS: usize = 12;
    const ROUNDS_MAX: u64 = 16;
    let mut all = 0;
    for round in 0..ROUNDS_MAX {
        let rack = Rack::start();
        let program = [c_program("fork_tree"), "32".into(), round.to_string().into()];
        let process = Process::start(&mut rack.run(12, &[], &program), LIMIT);
        let begun = Instant::now();
        while target(&rack).is_none() && begun.elapsed() < Duration::from_secs(5) {}
        let mut kills = 0;
        while let Some((pid, pager)) = target(&rack)
            && kill_at_a_fork(pager)
        {
            kills += 1;
            if take_over(&rack, pid, 12).is_none() {
                break;
            }
        }
        process.finish().expect_success(&format!("fork_tree under {kills} pagers that were killed"));
        all += kills;
        if all >= KILLS {
            return;
        }
    }
    panic!("only {all} pagers were killed");
}

#[test]
fn root_a_trustee_ends_with_its_pager_or_with_what_it_keeps() {
    let trustees = |session: u32| -> Vec<u32> {
        let named = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
            stat.contains("(rackmem-trustee)") && fields[0] != "Z" && fields[3] == session.to_string()
        };
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(named).collect()
    };
    let gone = |session: u32| {
        let begun = Instant::now();
        while !trustees(session).is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(5), "a trustee stays: {:?}", trustees(session));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let rack = Rack::start();
    let program = [c_program("patient"), "32".into()];
    let mut process = Process::start(&mut rack.run(16, &[], &program), LIMIT);
    process.expect_line("ready");
    let (pid, first) = target(&rack).unwrap();
    assert_eq!(trustees(first).len(), 1);
    kill(first);
    assert_eq!(trustees(first).len(), 1, "the target may still need it");
    take_over(&rack, pid, 16).unwrap();
    gone(first);
    let (_, second) = target(&rack).unwrap();
    kill(second);
    let links = |pid: u32| {
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .flatten()
            .filter_map(|fd| fd.path().read_link().ok())
    };
    let begun = Instant::now();
    while !links(trustees(second)[0]).all(|link| link.ends_with("anon_inode:[userfaultfd]")) {
        assert!(begun.elapsed() < Duration::from_secs(5), "it keeps more than userfaultfds");
    }
    let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
    gone(second);
    let mut process = Process::start(&mut rack.run(16, &[], &program), LIMIT);
    process.expect_line("ready");
    let (pid, third) = target(&rack).unwrap();
    rack.quick(&["detach", &pid.to_string()]);
    gone(third);
}

#[test]
fn root_redis_under_load() {
    let rack = Rack::start();
    let address = free_address();
    let port = address.rsplit(':').next().unwrap().to_owned();
    let program: Vec<OsString> = [required("redis-server").into_os_string()]
        .into_iter()
        .chain(["--port", &port, "--save", "", "--appendonly", "no"].map(OsString::from))
        .collect();
    let mut redis = Redis::start(rack.run(16, &[], &program).stdin(Stdio::null()), &address, LIMIT);
    let value = |number: u64, generation: u64| format!("{number}:{generation}:").repeat(100);
    let mut generations = vec![0; 40_000];
    for (number, _) in generations.iter().enumerate() {
        redis.ask(&[b"SET", number.to_string().as_bytes(), value(number as u64, 0).as_bytes()]);
    }
    let mut delays = Delays(3);
    for round in 0..KILLS {
        let (pid, pager) = target(&rack).unwrap();
        let killer = std::thread::spawn({
            let delay = delays.next(30);
            move || {
                std::thread::sleep(delay);
                kill(pager);
            }
        });
        // Requests go on across the death and the take-over; their answers are read afterwards.
        let numbers: Vec<usize> =
            (0..600).map(|i| (round as usize * 7919 + i * 613) % generations.len()).collect();
        for &number in &numbers {
            generations[number] += 1;
            let value = value(number as u64, generations[number]);
            redis.send(&[b"SET", number.to_string().as_bytes(), value.as_bytes()]);
        }
        killer.join().unwrap();
        take_over(&rack, pid, 16).expect("redis lives");
        for _ in &numbers {
            assert_eq!(redis.answer(), b"OK");
        }
        for number in numbers {
            let found = redis.ask(&[b"GET", number.to_string().as_bytes()]);
            assert!(
                found == value(number as u64, generations[number]).into_bytes(),
                "value {number} in round {round}"
            );
        }
    }
    for (number, &generation) in generations.iter().enumerate() {
        let found = redis.ask(&[b"GET", number.to_string().as_bytes()]);
        assert!(found == value(number as u64, generation).into_bytes(), "value {number} at the end");
    }
}

#[test]
fn root_of_two_successors_one_wins() {
    let rack = Rack::start();
    let program = [c_program("patient"), "48".into()];
    let mut process = Process::start(&mut rack.run(16, &[], &program), LIMIT);
    process.expect_line("ready");
    let (pid, mut pager) = target(&rack).unwrap();
    for _ in 0..5 {
        kill(pager);
        let name = pid.to_string();
        let arguments = ["attach", &name, "--memory-server", rack.address(), "--local", "16MiB"];
        let both = [(); 2].map(|()| Process::start(&mut rack.command(arguments), LIMIT));
        let won = both.map(|successor| successor.finish().status.success());
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
        pager = target(&rack).unwrap().1;
        process.signal(Signal::USR1);
        process.expect_line("checked");
    }
}

#[test]
fn root_a_memory_server_that_was_restarted_meanwhile_means_sigbus_and_is_told() {
    let rack = Rack::start_local("unix"); // for its runtime directory
    let address = free_address();
    let server = |address: &str| {
        let arguments = ["memory-server", "--size", "1GiB", "--listen", address];
        let server = Process::start(&mut rack.command(arguments), LIMIT);
        while std::net::TcpStream::connect(address).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    };
    let first = server(&address);
    let patient = c_program("patient").into_string().unwrap();
    let arguments =
        ["run", "--memory-server", &address, "--local", "16MiB", "--lost-after", "2", "--", &patient, "64"];
    let mut process = Process::start(&mut rack.command(arguments), LIMIT);
    process.expect_line("ready");
    let (pid, pager) = target(&rack).unwrap();
    kill(pager);
    drop(first);
    let _second = server(&address);
    let name = pid.to_string();
    let arguments = ["attach", &name, "--memory-server", &address, "--local", "16MiB", "--lost-after", "2"];
    Process::start(&mut rack.command(arguments), LIMIT).finish().expect_success("the take-over");
    let ended = process.finish();
    assert!(!ended.stderr.contains("found"), "it read wrong content: {}", ended.stderr);
    let number = ended.status.signal().or(ended.status.code().map(|code| code - 128));
    assert_eq!(number, Some(Signal::BUS.as_raw()), "{}\n{}", ended.status, ended.stderr);
    let log = std::fs::read_to_string(rack.directory().join(format!("{pid}.log"))).unwrap_or_default();
    assert!(log.contains("restarted"), "nothing was told: {log}");
}

#[test]
fn root_a_living_pager_is_left_alone_and_a_stranger_has_nothing_to_take_over() {
    let rack = Rack::start();
    let mut command = std::process::Command::new(c_program("patient"));
    let mut process = Process::start(command.arg("32").stdin(Stdio::null()), LIMIT);
    process.expect_line("ready");
    let pid = process.pid().to_string();
    let log = rack.directory().join("log");
    let refused = |expected: &str| {
        let arguments = ["--memory-server", rack.address(), "--local", "16MiB"];
        // The shell gives it descriptor 9 to report on.
        let line = format!(
            "exec 9>&1; exec \"$0\" pager --take-over --pid {pid} --name x --ready-fd 9 --log {} \"$@\"",
            log.display()
        );
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(line).arg(rackmem_e2e::rackmem()).args(arguments);
        let ended = Process::start(command.env("RACKMEM_RUNTIME_DIR", rack.directory()), LIMIT).finish();
        assert!(!ended.status.success() && ended.stdout.contains(expected), "{ended:?}");
    };
    refused("nothing to be taken over");
    rack.attach(process.pid(), 16);
    refused("alive");
    process.signal(Signal::USR1);
    process.expect_line("checked");
}
