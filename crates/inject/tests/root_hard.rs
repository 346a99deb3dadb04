//! Programs that are hard to enter: namespaces, filters, threads that do not stop. Needs root, gcc, Python and
//! util-linux.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rackmem_inject::{InjectError, Resident, Stopped, dismiss, process_status, remove, start};

/// A child whose standard output is read line by line, and that is killed with all its descendants when the test ends.
struct Program {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Program {
    fn start(command: &[&str]) -> Self {
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("program starts");
        let lines = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        Self { child, lines }
    }

    fn python(script: &str) -> Self {
        let mut program = Self::start(&["python3", "-uc", script]);
        assert_eq!(program.line(), "ready");
        program
    }

    /// The interpreter itself: `python3` may be a script that starts it.
    fn id(&self) -> u32 {
        descendants(self.child.id()).pop().expect("a process is its own descendant")
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the program writes text");
        line.trim().to_owned()
    }

    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().expect("standard input is a pipe"), "{line}").expect("it reads");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        for pid in descendants(self.child.id()).into_iter().rev() {
            let pid = nix::unistd::Pid::from_raw(pid as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// `pid` and what it started, one after another as far as each has one child.
fn descendants(pid: u32) -> Vec<u32> {
    let mut chain = vec![pid];
    while let Some(child) = chain.last().and_then(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    }) {
        chain.push(child);
    }
    chain
}

fn enter(pid: u32) -> Resident {
    let (resident, stopped) = start(pid).expect("the process can be entered");
    stopped.release();
    resident
}

fn error(result: Result<(Resident, Stopped), InjectError>) -> InjectError {
    result.err().expect("the process cannot be entered")
}

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives").count()
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(5), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal).expect("the process lives");
}

#[test]
fn root_a_process_in_another_pid_namespace() {
    let mut program =
        Program::start(&["unshare", "-pf", "--mount-proc", "sh", "-c", "echo ready; exec sleep 100"]);
    assert_eq!(program.line(), "ready");
    let pid = program.id();
    assert_ne!(pid, program.child.id());
    wait_until("it sleeps", || process_status(pid).is_ok_and(|status| status.name == "sleep"));
    let resident = enter(pid);
    assert!(fs::exists(format!("/proc/{pid}/task/{}", resident.thread())).unwrap(), "the id is one of ours");
    let inner = resident.session().call("gettid", libc::SYS_gettid, [0; 6]).unwrap();
    assert_ne!(inner, u64::from(resident.thread()));
    dismiss(&resident).unwrap();
    assert_eq!(threads(pid), 1);
}

#[test]
fn root_a_thread_that_does_not_stop_is_let_go() {
    let source = r#"
        #include <unistd.h>
        #include <stdio.h>
        int main(void) {
            puts("ready");
            fflush(stdout);
            if (vfork() == 0) { usleep(3000000); _exit(0); }
            puts("on");
            return 0;
        }"#;
    let (_directory, path) = built(&[], source);
    let mut program = Program::start(&[&path]);
    assert_eq!(program.line(), "ready");
    std::thread::sleep(Duration::from_millis(100));
    let pid = program.child.id();
    let why = error(start(pid));
    assert!(matches!(why, InjectError::Busy(..) | InjectError::Shared { .. }), "{why}");
    wait_until("nobody traces it", || process_status(pid).unwrap().tracer == 0);
    assert_eq!(program.line(), "on", "it was not harmed");
    assert!(program.child.wait().unwrap().success());
}

/// Builds a C program in a directory that is removed when the test ends; gives its path.
fn built(options: &[&str], source: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let (file, program) = (directory.path().join("program.c"), directory.path().join("program"));
    fs::write(&file, source).unwrap();
    let status = Command::new("gcc").args(options).arg("-o").arg(&program).arg(&file).status().unwrap();
    assert!(status.success(), "gcc builds the program");
    (directory, program.to_str().unwrap().to_owned())
}

#[test]
fn root_a_process_that_was_told_to_stop_is_refused_at_once() {
    let program = Program::start(&["sleep", "100"]);
    let pid = program.child.id();
    signal(pid, nix::sys::signal::Signal::SIGSTOP);
    wait_until("it stops", || process_status(pid).unwrap().state == 'T');
    let begin = Instant::now();
    let why = error(start(pid));
    assert!(matches!(why, InjectError::Stopped(_)), "{why}");
    assert!(begin.elapsed() < Duration::from_millis(500));
    assert_eq!(process_status(pid).unwrap().state, 'T', "it still is");
    signal(pid, nix::sys::signal::Signal::SIGCONT);
    let resident = enter(pid);
    // The code and the ring leave a process that stands still as well.
    resident.session().exit().unwrap();
    signal(pid, nix::sys::signal::Signal::SIGSTOP);
    wait_until("it stops", || process_status(pid).unwrap().state == 'T');
    remove(&resident).unwrap();
    wait_until("it is stopped again", || process_status(pid).unwrap().state == 'T');
    signal(pid, nix::sys::signal::Signal::SIGCONT);
    wait_until("it goes on", || process_status(pid).unwrap().state == 'S');
}

/// A control group of its own, of the kind that can be frozen; removed when dropped.
struct Group(std::path::PathBuf);

impl Group {
    fn with(pid: u32) -> Self {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mount = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|words| words[2] == "cgroup2");
        let place = mount.expect("cgroup2 is mounted")[1].to_owned();
        let group = Self(std::path::Path::new(&place).join(format!("rackmem-test-{}", std::process::id())));
        fs::create_dir(&group.0).unwrap();
        fs::write(group.0.join("cgroup.procs"), pid.to_string()).unwrap();
        group
    }

    fn freeze(&self, frozen: bool) {
        fs::write(self.0.join("cgroup.freeze"), if frozen { "1" } else { "0" }).unwrap();
        let events = || fs::read_to_string(self.0.join("cgroup.events")).unwrap();
        wait_until("the group follows", || events().contains(if frozen { "frozen 1" } else { "frozen 0" }));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let parent = self.0.parent().expect("it is in the mount").join("cgroup.procs");
        for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(&parent, pid);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn root_a_frozen_process_is_refused_and_goes_on_as_it_was() {
    let mut program = Program::python("import sys\nprint('ready')\nfor line in sys.stdin: print('alive')");
    let pid = program.id();
    let group = Group::with(pid);
    group.freeze(true);
    let begin = Instant::now();
    let why = error(start(pid));
    assert!(matches!(why, InjectError::Stopped(_) | InjectError::Busy(..)), "{why}");
    assert!(begin.elapsed() < Duration::from_secs(2));
    group.freeze(false);
    program.say("?");
    assert_eq!(program.line(), "alive");
    dismiss(&enter(pid)).unwrap();
}

/// A filter as a Python list of (code, jt, jf, k), and what installs it.
fn with_filter(body: &str) -> String {
    format!(
        "
import ctypes, struct, time, sys
libc = ctypes.CDLL(None, use_errno=True)
def install(program, flags=0):
    code = b''.join(struct.pack('HBBI', *i) for i in program)
    buffer = ctypes.create_string_buffer(code)
    fprog = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(program), ctypes.addressof(buffer)))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    result = libc.syscall(317, 1, flags, fprog)
    assert result == 0, (result, ctypes.get_errno())
LOAD, ALLOW, KILL, EPERM = (0x20, 0, 0, 0), (6, 0, 0, 0x7fff0000), (6, 0, 0, 0x80000000), (6, 0, 0, 0x50001)
def all_but(number, verdict): return [LOAD, (0x15, 0, 1, number), verdict, ALLOW]
{body}
print('ready')
for line in sys.stdin: print('alive')
"
    )
}

#[test]
fn root_a_filter_that_forbids_nothing_that_we_need_is_no_obstacle() {
    // execve kills, userfaultfd is refused: the pager has the device for that.
    let mut program =
        Program::python(&with_filter("install(all_but(59, KILL)); install(all_but(323, EPERM))"));
    let pid = program.id();
    for _ in 0..3 {
        let resident = enter(pid);
        resident.session().call("getpid", libc::SYS_getpid, [0; 6]).unwrap();
        dismiss(&resident).unwrap();
        program.say("?");
        assert_eq!(program.line(), "alive");
    }
}

#[test]
fn root_a_filter_that_would_kill_is_found_before_it_does() {
    for (number, name) in
        [(libc::SYS_clone, "clone"), (libc::SYS_madvise, "madvise"), (libc::SYS_exit, "exit")]
    {
        let mut program = Program::python(&with_filter(&format!("install(all_but({number}, KILL))")));
        let why = error(start(program.id()));
        assert!(matches!(why, InjectError::Forbidden { call, .. } if call == name), "{why}");
        program.say("?");
        assert_eq!(program.line(), "alive", "it is unharmed");
    }
}

#[test]
fn root_a_failed_entry_leaves_nothing_behind() {
    // There are too few descriptors for the memfd, or for the pair of sockets.
    let program = Program::python("import sys,os\nprint('ready')\nfor line in sys.stdin: pass");
    let pid = program.id();
    let maps = || fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let (maps_before, open) = (maps(), descriptors());
    let used: Vec<usize> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|fd| fd.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    let prlimit = |room: usize| {
        let free = (0..).filter(|number| !used.contains(number)).nth(room).unwrap();
        let limit = format!("--nofile={free}:4096");
        let status = Command::new("prlimit").arg(format!("--pid={pid}")).arg(limit).status();
        assert!(status.unwrap().success());
    };
    for room in 0..3 {
        prlimit(room);
        let why = error(start(pid));
        assert!(matches!(why, InjectError::Call { .. }), "{why}");
        assert_eq!(
            (maps(), descriptors(), threads(pid)),
            (maps_before.clone(), open, 1),
            "with room for {room}"
        );
    }
    prlimit(100);
    dismiss(&enter(pid)).unwrap();
    assert_eq!((maps(), descriptors(), threads(pid)), (maps_before, open, 1));
}

#[test]
fn root_a_32_bit_program_is_refused() {
    // pause(2) of i386.
    let source = r#"__asm__(".globl _start\n_start: mov $29, %eax\nint $0x80\njmp _start");"#;
    let (_directory, path) = built(&["-m32", "-nostdlib", "-static"], source);
    let mut program = Program::start(&[&path]);
    std::thread::sleep(Duration::from_millis(50));
    let why = error(start(program.child.id()));
    assert!(matches!(why, InjectError::NotX86_64(_)), "{why}");
    assert!(program.child.try_wait().unwrap().is_none(), "it lives");
    wait_until("nobody traces it", || process_status(program.child.id()).unwrap().tracer == 0);
}

#[test]
fn root_the_program_may_enter_other_namespaces_and_roots() {
    let script = "
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
print('ready')
def check(what, result): print(what, result if result == 0 else ctypes.get_errno(), flush=True)
sys.stdin.readline()
CLONE_FS, CLONE_NEWNS, CLONE_NEWNET = 0x200, 0x20000, 0x40000000
check('setns', libc.setns(os.open('/proc/self/ns/mnt', os.O_RDONLY), CLONE_NEWNS))
check('fs', libc.unshare(CLONE_FS))
check('mnt', libc.unshare(CLONE_NEWNS))
check('net', libc.unshare(CLONE_NEWNET))
os.chdir('/tmp')
check('chroot', libc.chroot(b'/usr'))
sys.stdin.readline()
";
    let mut program = Program::python(script);
    let resident = enter(program.id());
    program.say("go");
    for what in ["setns 0", "fs 0", "mnt 0", "net 0", "chroot 0"] {
        assert_eq!(program.line(), what);
    }
    assert_eq!(
        fs::read_link(format!("/proc/{}/root", resident.thread())).unwrap().to_str(),
        Some("/"),
        "the resident thread did not follow"
    );
    dismiss(&resident).unwrap();
}

#[test]
fn root_two_processes_with_one_memory_are_left_alone() {
    let source = r#"
        #define _GNU_SOURCE
        #include <sched.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <unistd.h>
        static int other(void *unused) { (void)unused; for (;;) pause(); }
        int main(void) {
            char *stack = malloc(1 << 16);
            printf("%d\n", clone(other, stack + (1 << 16), CLONE_VM, 0));
            fflush(stdout);
            for (;;) pause();
        }"#;
    let (_directory, path) = built(&[], source);
    let mut program = Program::start(&[&path]);
    let other: u32 = program.line().parse().unwrap();
    let pid = program.child.id();
    for (one, two) in [(pid, other), (other, pid)] {
        let why = error(start(one));
        assert!(matches!(why, InjectError::Shared { other, .. } if other == two), "{why}");
    }
    assert_eq!((threads(pid), threads(other)), (1, 1));
}

#[test]
fn root_the_resident_thread_gives_up_what_the_program_gives_up() {
    let script = "
import os, sys
print('ready')
sys.stdin.readline()
os.setgroups([7, 8])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65533, 65534)
print('done')
sys.stdin.readline()
";
    let mut program = Program::python(script);
    let resident = enter(program.id());
    assert!(!resident.follow_credentials().unwrap(), "nothing has changed");
    program.say("go");
    assert_eq!(program.line(), "done");
    assert!(resident.follow_credentials().unwrap());
    let rights = |task: u32| -> Vec<String> {
        let status = fs::read_to_string(format!("/proc/{task}/status")).unwrap();
        let names = ["Uid:", "Gid:", "Groups:", "CapPrm:", "CapEff:"];
        status
            .lines()
            .filter(|line| names.iter().any(|name| line.starts_with(name)))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(rights(resident.thread()), rights(program.id()));
    assert!(rights(program.id())[0].contains("65533"));
    assert!(!resident.follow_credentials().unwrap(), "it has followed");
    dismiss(&resident).unwrap();
}
