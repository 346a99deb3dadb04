//! Racks on one machine, with real memory servers and agents in network namespaces. Needs root, iproute2 and gcc.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rackmem_e2e::{Ended, Process, SMALL_RACK, c_program, rackmem};
use rustix::process::Signal;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(90);

/// The data addresses of m1 and m2, and m1's on the management net.
const M1: &str = "10.77.0.3:7070";
const M2: &str = "10.77.0.4:7070";
const M1_MANAGEMENT: &str = "10.78.0.3:7070";

/// Racks in a directory of their own; all that this test named is taken down at its end.
struct Racks {
    directory: TempDir,
    names: Vec<String>,
}

impl Racks {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("small.toml"), SMALL_RACK).unwrap();
        Self { directory, names: Vec::new() }
    }

    /// A name that no other test has, short enough to be read.
    fn name(&mut self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        self.names.push(name.clone());
        name
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(rackmem());
        command.arg("rack").args(arguments).env("RACKMEM_RACKS", self.path("racks")).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn rack(&self, arguments: &[&str]) -> Ended {
        Process::start(&mut self.command(arguments), LIMIT).finish()
    }

    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        self.rack(arguments).expect_success(&arguments.join(" ")).stdout
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], why: &str) {
        let ended = self.rack(arguments);
        assert!(!ended.status.success() && ended.stderr.contains(why), "{arguments:?}: {ended:?}");
    }

    #[track_caller]
    fn up(&self, name: &str) -> String {
        self.done(&["up", self.path("small.toml").to_str().unwrap(), "--name", name])
    }

    /// `rackmem run` of a test program in a brick.
    fn run(&self, name: &str, brick: &str, server: &str, program: &[OsString]) -> Process {
        let mut command = self.command(&["exec", name, brick, "--"]);
        command.arg(rackmem()).args([
            "run",
            "--memory-server",
            server,
            "--local",
            "16MiB",
            "--lost-after",
            "2",
        ]);
        Process::start(command.arg("--").args(program), LIMIT)
    }

    /// Whether a program in a brick can use the far memory of a server.
    #[track_caller]
    fn reaches(&self, name: &str, brick: &str, server: &str) -> bool {
        let ended = self.run(name, brick, server, &[c_program("fill_check"), "48".into()]).finish();
        let passed = ended.status.success() && ended.stdout.contains("as written");
        assert!(passed || ended.stderr.contains(server), "neither reached nor said so: {ended:?}");
        passed
    }
}

impl Drop for Racks {
    fn drop(&mut self) {
        for name in &self.names {
            // Most are down already.
            let _ = self.command(&["down", name]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// Namespaces of a rack that are there.
fn namespaces(name: &str) -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|one| one == name || one.starts_with(&format!("{name}:"))).collect()
}

/// Processes that were told of `directory` on their command line.
fn processes(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(directory.to_str().unwrap())).collect()
}

fn devices() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").unwrap().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn root_pages_move_over_circuits_only() {
    let mut racks = Racks::new();
    let name = racks.name();
    racks.up(&name);
    assert!(!racks.reaches(&name, "c1", M1), "without a circuit");
    assert!(!racks.reaches(&name, "c1", M1_MANAGEMENT), "over the management net");
    racks.done(&["connect", &name, "s1", "0-4"]);
    assert!(racks.reaches(&name, "c1", M1), "with a circuit");
    assert!(!racks.reaches(&name, "c1", M2), "a circuit leads to one brick");
    assert!(!racks.reaches(&name, "c2", M1), "a circuit is of one brick");
    // The other way round, both in one change.
    racks.done(&["connect", &name, "s1", "0-5", "1-4", "--instead-of", "0-4", "--generation", "3"]);
    assert!(racks.reaches(&name, "c1", M2) && racks.reaches(&name, "c2", M1), "after the change");
    assert!(!racks.reaches(&name, "c1", M1), "the old circuit");
}

#[test]
fn root_what_cannot_be_switched_is_refused_and_changes_nothing() {
    let mut racks = Racks::new();
    let name = racks.name();
    racks.up(&name);
    racks.done(&["connect", &name, "s1", "0-4", "--generation", "7"]);
    racks.refused(&["connect", &name, "s1", "1-5", "--generation", "6"], "overtaken");
    racks.refused(&["connect", &name, "s1", "1-5", "0-5"], "port 0 serves the circuit 0-4");
    // Ports 2 and 3 have no cable.
    racks.refused(&["connect", &name, "s1", "1-2"], "no port 2");
    racks.refused(&["connect", &name, "s1", "1-1"], "cannot be connected to itself");
    racks.refused(&["connect", &name, "s9", "1-5"], "it has: s1");
    assert_eq!(racks.done(&["circuits", &name, "s1"]), "circuits: 0-4 (generation 7)\n");
    racks.done(&["disconnect", &name, "s1", "0-4"]);
    assert_eq!(racks.done(&["circuits", &name, "s1"]), "circuits: none (generation 7)\n");
}

#[test]
fn root_a_program_hears_of_a_lost_circuit_within_its_time_and_lives_through_a_short_break() {
    let mut racks = Racks::new();
    let name = racks.name();
    racks.up(&name);
    racks.done(&["connect", &name, "s1", "0-4"]);
    let mut process = racks.run(&name, "c1", M1, &[c_program("patient"), "64".into()]);
    process.expect_line("ready");
    racks.done(&["disconnect", &name, "s1", "0-4"]);
    racks.done(&["connect", &name, "s1", "0-4"]);
    process.signal(Signal::USR1);
    process.expect_line("checked");
    assert!(process.is_running());
    racks.done(&["disconnect", &name, "s1", "0-4"]);
    let removed = Instant::now();
    let ended = process.finish();
    let took = removed.elapsed();
    println!("lost circuit: the program ended after {took:?}");
    let number = ended.status.signal().or(ended.status.code().map(|code| code - 128));
    assert_eq!(number, Some(Signal::BUS.as_raw()), "{ended:?}");
    assert!(!ended.stderr.contains("found"), "it read wrong content: {}", ended.stderr);
    // Told to give up after 2 s of silence; the rest is for noticing.
    assert!(took < Duration::from_secs(6), "it took {took:?}");
}

#[test]
fn root_up_again_makes_what_is_missing_and_down_leaves_nothing() {
    let mut racks = Racks::new();
    let (name, other) = (racks.name(), racks.name());
    let before = devices();
    assert!(racks.up(&name).ends_with("5 programs started\n"));
    assert!(racks.up(&other).ends_with("5 programs started\n"), "two racks side by side");
    assert!(racks.up(&name).ends_with("0 programs started\n"), "all of it stands");
    // A memory server dies.
    let pids = Command::new("ip").args(["netns", "pids", &format!("{name}:m1")]).output().unwrap().stdout;
    let pid: i32 = String::from_utf8(pids).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    while Path::new(&format!("/proc/{pid}/ns/net")).read_link().is_ok() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(racks.up(&name).ends_with("1 programs started\n"), "the server that died");
    fs::write(racks.path("small.toml"), SMALL_RACK.replace("1GiB", "2GiB")).unwrap();
    let file = racks.path("small.toml");
    racks.refused(&["up", file.to_str().unwrap(), "--name", &name], "another file");
    racks.done(&["down", &name]);
    assert!(namespaces(&name).is_empty() && !racks.path("racks").join(&name).exists());
    assert_eq!(namespaces(&other).len(), 6, "the other rack stands");
    racks.done(&["down", &other]);
    racks.refused(&["down", &other], "there are: none");
    assert_eq!(devices(), before);
    assert_eq!(processes(racks.directory.path()), Vec::<String>::new());
}

#[test]
fn root_somebody_elses_namespace_is_left_alone() {
    let mut racks = Racks::new();
    let name = racks.name();
    let foreign = format!("{name}:m2");
    let ip = |verb| Command::new("ip").args(["netns", verb, &foreign]).status().unwrap();
    assert!(ip("add").success());
    let file = racks.path("small.toml");
    racks.refused(&["up", file.to_str().unwrap(), "--name", &name], "did not make it");
    racks.refused(&["down", &name], "there is no rack");
    assert_eq!(namespaces(&name), std::slice::from_ref(&foreign));
    assert!(ip("del").success());
}

#[test]
fn root_a_rack_that_was_killed_while_it_was_built_is_taken_down_to_the_last_piece() {
    let mut racks = Racks::new();
    let before = devices();
    let mut caught = 0;
    for wait_ms in [0, 5, 15, 30, 60, 100, 150, 250, 400, 600] {
        let name = racks.name();
        let file = racks.path("small.toml");
        let mut building = racks
            .command(&["up", file.to_str().unwrap(), "--name", &name])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait_ms));
        let was_building = building.try_wait().unwrap().is_none();
        building.kill().unwrap();
        building.wait().unwrap();
        caught += usize::from(was_building && !namespaces(&name).is_empty());
        if racks.path("racks").join(&name).exists() {
            racks.done(&["down", &name]);
        }
        assert_eq!(namespaces(&name), Vec::<String>::new(), "killed after {wait_ms} ms");
        assert!(!racks.path("racks").join(&name).exists());
    }
    assert!(caught >= 2, "{caught} were caught half built: the waits are wrong");
    assert_eq!(devices(), before);
    assert_eq!(processes(racks.directory.path()), Vec::<String>::new());
}

#[test]
fn root_a_half_built_rack_is_finished_by_up() {
    let mut racks = Racks::new();
    let name = racks.name();
    racks.up(&name);
    fs::remove_file(racks.path("racks").join(&name).join("complete")).unwrap();
    assert!(racks.done(&["list"]).contains("half built"));
    assert!(racks.up(&name).ends_with("5 programs started\n"));
    racks.done(&["connect", &name, "s1", "0-4"]);
    assert!(racks.reaches(&name, "c1", M1));
}
