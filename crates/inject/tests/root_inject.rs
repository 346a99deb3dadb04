//! Resident threads in real programs. Needs the right to trace them (root).

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rackmem_inject::{Call, InjectError, Resident, remove, start};

/// A child that is killed when the test ends.
struct Program(Child);

impl Program {
    fn start(command: &[&str]) -> Self {
        let child = Command::new(command[0])
            .args(&command[1..])
            .stdout(Stdio::piped())
            .spawn()
            .expect("program starts");
        let program = Self(child);
        program.wait_until_it_rests();
        program
    }

    /// Waits until it has waited for something at several looks in a row: it is loaded then, and at what it is to do.
    fn wait_until_it_rests(&self) {
        const LOOKS: u32 = 5;
        const LIMIT: Duration = Duration::from_secs(20);
        let (begun, mut rested) = (Instant::now(), 0);
        while rested < LOOKS {
            assert!(begun.elapsed() < LIMIT, "it does not come to rest");
            std::thread::sleep(Duration::from_millis(20));
            let status = rackmem_inject::process_status(self.id()).expect("the process lives");
            rested = if status.state == 'S' { rested + 1 } else { 0 };
        }
    }

    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Enters a process and lets it go on.
fn enter(pid: u32) -> Resident {
    let (resident, stopped) = start(pid).expect("the process can be entered");
    stopped.release();
    resident
}

fn mappings(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process lives");
    text.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect()
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").count()
}

#[test]
fn runs_calls_inside_and_leaves_no_trace() {
    let program = Program::start(&["sleep", "100"]);
    let pid = program.id();
    let (maps, fds) = (mappings(pid), descriptors(pid));
    for _ in 0..3 {
        let (resident, stopped) = start(pid).unwrap();
        println!("pause {:?}", stopped.release());
        assert_eq!(resident.session().call("getpid", libc::SYS_getpid, [0; 6]).unwrap(), u64::from(pid));
        assert_eq!(
            resident.session().call("gettid", libc::SYS_gettid, [0; 6]).unwrap(),
            u64::from(resident.thread())
        );
        let mut results = Vec::new();
        let calls = vec![Call::new(libc::SYS_getppid, [0; 6]); 1200];
        resident.session().run(&calls, &mut results).unwrap();
        assert!(results.len() == 1200 && results.iter().all(|&id| id == i64::from(std::process::id())));
        assert_eq!(descriptors(pid), fds, "the program's table is its own");
        resident.session().exit().unwrap();
        remove(&resident).unwrap();
        assert_eq!(mappings(pid), maps);
        assert_eq!(fs::read_dir(format!("/proc/{pid}/task")).unwrap().count(), 1);
    }
}

#[test]
fn an_interrupted_sleep_ends_when_it_should() {
    let begin = Instant::now();
    let mut program = Program(Command::new("sleep").arg("1").spawn().unwrap());
    std::thread::sleep(Duration::from_millis(100));
    let resident = enter(program.id());
    assert!(program.0.wait().unwrap().success());
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(950), "{took:?}");
    assert!(resident.is_gone());
    assert!(matches!(
        resident.session().call("getpid", libc::SYS_getpid, [0; 6]),
        Err(InjectError::ResidentGone(_))
    ));
}

#[test]
fn descriptors_travel_both_ways() {
    let program = Program::start(&["sleep", "100"]);
    let resident = enter(program.id());
    let file = fs::File::open("/proc/self/status").unwrap();
    let mut session = resident.session();
    let there = session.give(std::os::fd::AsFd::as_fd(&file)).unwrap();
    let back = session.take(there).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut fs::File::from(back), &mut text).unwrap();
    assert!(text.contains("Name:"), "the descriptor came back whole");
}

#[test]
fn a_closed_gate_holds_gated_calls_and_cancels_them() {
    let program = Program::start(&["sleep", "100"]);
    let resident = enter(program.id());
    let gated = Call { number: libc::SYS_getpid, arguments: [0; 6], gated: true };
    resident.arm();
    resident.close_gate();
    std::thread::scope(|scope| {
        let batch = scope.spawn(|| {
            let mut results = Vec::new();
            resident.session().run(&[gated, Call::new(libc::SYS_getpid, [0; 6])], &mut results).unwrap();
            results
        });
        std::thread::sleep(Duration::from_millis(20));
        assert!(!batch.is_finished(), "the gated call waits");
        resident.open_gate(true);
        assert_eq!(batch.join().unwrap(), [-i64::from(libc::ECANCELED), i64::from(program.id())]);
    });
}

#[test]
fn signals_that_arrive_meanwhile_are_not_lost() {
    let script = "import signal,time\nn=0\ndef h(*a):\n global n\n n+=1\nsignal.signal(signal.SIGUSR1,h)\nprint('ready',flush=True)\nend=time.time()+20\nwhile time.time()<end and n<1: time.sleep(0.01)\nprint(n)";
    let mut program = Program::start(&["python3", "-c", script]);
    // Before it says so the signal would be its end.
    let mut ready = [0; 6];
    program.0.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\n");
    let pid = program.id();
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            std::thread::sleep(Duration::from_micros(200));
            Command::new("kill").args(["-USR1", &pid.to_string()]).status().unwrap()
        });
        let resident = enter(pid);
        sender.join().unwrap();
        drop(resident);
    });
    let mut out = String::new();
    program.0.stdout.as_mut().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out, "1\n");
}

#[test]
fn what_cannot_be_entered_is_said() {
    assert!(start(2).is_err(), "a kernel thread");
    assert!(matches!(start(0x3f_ffff), Err(InjectError::Gone(_))), "no such process");
}
