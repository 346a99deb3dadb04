//! Programs that are entered and left again and again notice nothing: no call is cut short, no register, signal or error
//! number changes. Needs root and gcc.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rackmem_inject::{InjectError, dismiss, paused, process_status, start};
use rackmem_uapi::process::signal_thread;

/// How often each program is entered and left.
const ROUNDS: usize = 200;

/// How many tracers of each program are killed.
const KILLS: usize = 100;

struct Waiter {
    child: Child,
    lines: BufReader<ChildStdout>,
    _directory: tempfile::TempDir,
}

impl Waiter {
    fn start(call: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("waits.c");
        let program = directory.path().join("waits");
        std::fs::write(&source, include_str!("programs/waits.c")).unwrap();
        let options = ["-O1", "-D_GNU_SOURCE", "-Wall", "-Wno-unused-result", "-o"];
        let status = Command::new("gcc").args(options).arg(&program).arg(&source).status().unwrap();
        assert!(status.success(), "gcc builds the program");
        let mut child =
            Command::new(&program).arg(call).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut waiter = Self { child, lines, _directory: directory };
        assert_eq!(waiter.line(), "ready");
        std::thread::sleep(Duration::from_millis(20));
        waiter
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn say(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    }

    /// Panics with what the program says if it has ended.
    #[track_caller]
    fn assert_lives(&mut self, when: &str) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{when}, the program ended ({status}): {}", self.line());
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn enter_and_leave(waiter: &mut Waiter, rounds: usize) {
    let pid = waiter.child.id();
    for round in 0..rounds {
        let (resident, stopped) = start(pid).unwrap();
        stopped.release();
        dismiss(&resident).unwrap();
        waiter.assert_lives(&format!("in round {round}"));
    }
}

/// The call waits on for what it waited for.
#[track_caller]
fn check_endless(call: &str) {
    let mut waiter = Waiter::start(call);
    enter_and_leave(&mut waiter, ROUNDS);
    waiter.say();
    assert_eq!(waiter.line(), "done");
}

/// The call goes on to wait, or to do what it does.
#[track_caller]
fn check(call: &str) {
    let mut waiter = Waiter::start(call);
    enter_and_leave(&mut waiter, ROUNDS);
    std::thread::sleep(Duration::from_millis(50));
    waiter.assert_lives("at the end");
}

#[test]
fn root_waits_without_a_limit() {
    for call in ["epoll_wait", "epoll_pwait", "poll", "select", "read", "wait"] {
        check_endless(call);
    }
}

#[test]
fn root_waits_that_nothing_ends() {
    for call in ["accept", "futex", "semop", "sigtimedwait"] {
        check(call);
    }
}

#[test]
fn root_waits_with_a_limit() {
    for call in ["epoll_wait_limited", "ppoll_limited", "recv_limited", "nanosleep", "futex_limited"] {
        check(call);
    }
}

#[test]
fn root_registers_and_errors() {
    check("registers");
    check("failing");
}

/// Names the process that [`the_tracer`] enters and leaves without end.
const TRACED: &str = "RACKMEM_TEST_TRACED";

/// Not a test but, where the variable is set, what the next one kills.
#[test]
fn the_tracer() {
    let Ok(pid) = std::env::var(TRACED) else { return };
    loop {
        let (resident, stopped) = start(pid.parse().unwrap()).unwrap();
        stopped.release();
        dismiss(&resident).unwrap();
    }
}

/// Entered and left until the tracer is killed, at any moment, again and again.
#[track_caller]
fn kill_tracers(waiter: &mut Waiter) {
    let pid = waiter.child.id();
    let blocked = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().any(|line| line.starts_with("SigBlk:") && !line.ends_with("0000000000000000"))
    };
    let mut micros = 1u64;
    for kill in 0..KILLS {
        let test = std::env::current_exe().unwrap();
        let mut command = Command::new(test);
        let tracer = command.args(["--exact", "the_tracer"]).env(TRACED, pid.to_string());
        let mut tracer = tracer.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        micros = micros.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros(3000 + (micros >> 33) % 5000));
        tracer.kill().unwrap();
        tracer.wait().unwrap();
        let begin = Instant::now();
        while blocked() {
            waiter.assert_lives(&format!("after {kill} tracers were killed"));
            assert!(begin.elapsed() < Duration::from_secs(5), "its signals stay blocked");
        }
        waiter.assert_lives(&format!("after {kill} tracers were killed"));
    }
}

#[test]
fn root_a_tracer_that_is_killed_is_not_noticed() {
    for call in ["registers", "nanosleep", "failing"] {
        let mut waiter = Waiter::start(call);
        kill_tracers(&mut waiter);
        std::thread::sleep(Duration::from_millis(50));
        waiter.assert_lives("at the end");
    }
    for call in ["read", "poll"] {
        let mut waiter = Waiter::start(call);
        kill_tracers(&mut waiter);
        waiter.say();
        assert_eq!(waiter.line(), "done");
    }
}

#[test]
fn root_no_signal_is_lost_or_doubled() {
    let mut waiter = Waiter::start("signals");
    let pid = waiter.child.id();
    const SIGNALS: usize = 3000;
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            for _ in 0..SIGNALS {
                // The first of the signals that are queued, one by one.
                signal_thread(pid, pid, libc::SIGRTMIN()).unwrap();
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        while !sender.is_finished() {
            enter_and_leave(&mut waiter, 1);
        }
    });
    waiter.say();
    assert_eq!(waiter.line(), SIGNALS.to_string());
}

#[test]
fn root_a_pause_is_not_noticed_and_limits_are_kept() {
    for call in ["epoll_wait", "read", "poll"] {
        let mut waiter = Waiter::start(call);
        for _ in 0..ROUNDS {
            // Where all CPUs are busy, a thread may not stop soon enough for a pause.
            match paused(waiter.child.id(), 0, || ()) {
                Ok(()) | Err(InjectError::Busy(..)) => {}
                Err(error) => panic!("{error}"),
            }
            waiter.assert_lives("between pauses");
        }
        waiter.say();
        assert_eq!(waiter.line(), "done");
    }
    // Pauses that never end must not make a limit endless: it gives EINTR then, as after SIGCONT.
    let mut waiter = Waiter::start("epoll_wait_limited");
    let begin = Instant::now();
    let pid = waiter.child.id();
    let lives = || process_status(pid).is_ok_and(|status| status.state != 'Z');
    while lives() && begin.elapsed() < Duration::from_secs(5) {
        let _ = paused(pid, 0, || ());
    }
    assert_eq!(waiter.line(), "epoll_wait_limited gave -1, Interrupted system call");
}
