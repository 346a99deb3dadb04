//! The controller over a real rack: reservations set circuits and tables, and pages flow. Needs root, iproute2 and gcc.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rackmem_e2e::{Ended, Process, SMALL_RACK, c_program, free_address, has_ended, rackmem};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(90);

/// A directory with racks or a controller's state, and `rackmem` that knows of nothing else.
struct Place {
    directory: TempDir,
    rack: Option<String>,
    controller: Option<String>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("small.toml"), SMALL_RACK).unwrap();
        Self { directory, rack: None, controller: None }
    }

    /// With a rack that stands.
    fn with_rack(name: &str) -> Self {
        let mut place = Self::new();
        place.rack = Some(format!("p{}-{name}", std::process::id()));
        assert!(place.up().contains("5 programs started"));
        place
    }

    fn name(&self) -> &str {
        self.rack.as_deref().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(rackmem());
        command.args(arguments).env("RACKMEM_RACKS", self.path("racks")).stdin(Stdio::null());
        match &self.controller {
            Some(address) => command.env("RACKMEM_CONTROLLER", address),
            None => command.env_remove("RACKMEM_CONTROLLER"),
        };
        command
    }

    #[track_caller]
    fn ask(&self, line: &str) -> Ended {
        let words: Vec<&str> = line.split_whitespace().collect();
        Process::start(&mut self.command(&words), LIMIT).finish()
    }

    #[track_caller]
    fn done(&self, line: &str) -> String {
        self.ask(line).expect_success(line).stdout
    }

    #[track_caller]
    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.done(&format!("{line} --json"))).unwrap()
    }

    /// It is refused with one line that says `why`.
    #[track_caller]
    fn refused(&self, line: &str, why: &str) {
        let ended = self.ask(line);
        let told = ended.stderr.contains(why) && !ended.stderr.contains("panicked");
        assert!(!ended.status.success() && told, "{line}: {ended:?}");
    }

    #[track_caller]
    fn up(&self) -> String {
        let file = self.path("small.toml");
        self.done(&format!("rack up {} --name {}", file.display(), self.name()))
    }

    #[track_caller]
    fn circuits(&self) -> String {
        let text = self.done(&format!("rack circuits {} s1", self.name()));
        text.split(" (").next().unwrap().trim_start_matches("circuits: ").to_owned()
    }

    /// Whether a program in a brick can use a memory server over the data net.
    #[track_caller]
    fn reaches(&self, brick: &str, server: &str) -> bool {
        let mut command = self.command(&["rack", "exec", self.name(), brick, "--"]);
        let options = ["run", "--memory-server", server, "--local", "16MiB", "--lost-after", "2", "--"];
        command.arg(rackmem()).args(options).arg(c_program("fill_check")).arg("48");
        let ended = Process::start(&mut command, LIMIT).finish();
        let passed = ended.status.success() && ended.stdout.contains("as written");
        assert!(passed || ended.stderr.contains(server), "neither reached nor said so: {ended:?}");
        passed
    }

    /// The rack's controller, by force.
    #[track_caller]
    fn kill_controller(&self) {
        self.kill(self.name());
    }

    /// The program of a brick, by force.
    #[track_caller]
    fn kill_brick(&self, brick: &str) {
        self.kill(&format!("{}:{brick}", self.name()));
    }

    #[track_caller]
    fn kill(&self, namespace: &str) {
        let pids = Command::new("ip").args(["netns", "pids", namespace]).output().unwrap().stdout;
        for pid in String::from_utf8(pids).unwrap().split_whitespace() {
            let killed = kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL);
            // What the program had started ends with it, and may be gone before its turn comes.
            assert!(matches!(killed, Ok(()) | Err(Errno::SRCH)), "{pid}: {killed:?}");
            while !has_ended(pid.parse().unwrap()) {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// The entries of an agent's table, by name, as the agent itself tells; `address` is its own on the management net.
    #[track_caller]
    fn table(&self, brick: &str, address: &str) -> Vec<String> {
        const ASK: &str = "import sys, urllib.request as r; token = open(sys.argv[2]).read().strip(); \
            print(r.urlopen(r.Request(sys.argv[1], headers={'Authorization': 'Bearer ' + token})).read().decode())";
        let token = self.path("racks").join(self.name()).join("token");
        let mut command = self.command(&["rack", "exec", self.name(), brick, "--", "python3", "-c", ASK]);
        command.arg(format!("http://{address}:7080/v1/attachments")).arg(token);
        let text = Process::start(&mut command, LIMIT).finish().expect_success("attachments").stdout;
        let entries: Value = serde_json::from_str(&text).unwrap();
        entries
            .as_array()
            .unwrap()
            .iter()
            .map(|view| view["entry"]["id"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Place {
    /// The segments of a memory brick by name, with their sizes, as the memory server itself tells.
    #[track_caller]
    fn segments(&self, brick: &str) -> Vec<(String, u64)> {
        let address = match brick {
            "m1" => "10.78.0.3:7070",
            _ => "10.78.0.4:7070",
        };
        let token = self.path("racks").join(self.name()).join("token");
        let mut command = self.command(&["rack", "exec", self.name(), brick, "--"]);
        command.arg(rackmem()).args(["segment", "list", "--json", "--memory-server", address]);
        command.arg("--token-file").arg(token);
        let text = Process::start(&mut command, LIMIT).finish().expect_success("segment list").stdout;
        let listed: Vec<Value> = serde_json::from_str(&text).unwrap();
        let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
        listed.iter().map(|one| (name(one), one["size"].as_u64().unwrap())).collect()
    }

    /// The same of both memory bricks.
    #[track_caller]
    fn all_segments(&self) -> Vec<(String, u64)> {
        [self.segments("m1"), self.segments("m2")].concat()
    }

    /// Waits until nothing that was accepted is under way.
    #[track_caller]
    fn settled(&self) {
        for operation in self.json("operation list --state running").as_array().unwrap() {
            // Some end undone.
            self.ask(&format!("operation wait {}", operation["id"].as_str().unwrap()));
        }
        assert_eq!(self.json("operation list --state running"), Value::Array(Vec::new()));
    }

    /// Waits until an event of that kind tells something.
    #[track_caller]
    fn told(&self, kind: &str) {
        let begun = Instant::now();
        while !self.done("events").contains(kind) {
            assert!(begun.elapsed() < Duration::from_secs(20), "no {kind}: {}", self.done("events"));
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("{kind} after {:?}", begun.elapsed());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.rack.is_some() {
            // It may be down already.
            let mut down = self.command(&["rack", "down", self.name()]);
            let _ = down.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// The memory brick of a reservation, with its address on the data net.
#[track_caller]
fn server(place: &Place, id: u64) -> &'static str {
    let view = place.json(&format!("reservation show {id}"));
    match view["mappings"][0]["segment"]["brick"].as_str() {
        Some("m1") => "10.77.0.3:7070",
        Some("m2") => "10.77.0.4:7070",
        other => panic!("no memory brick: {other:?} in {view}"),
    }
}

#[test]
fn root_a_reservation_brings_pages_and_its_release_ends_them() {
    let place = Place::with_rack("a");
    let bricks = place.json("brick list");
    let names: Vec<_> =
        bricks.as_array().unwrap().iter().map(|brick| brick["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["c1", "c2", "m1", "m2"]);
    let preview = place.done("reserve --compute c1 --memory 256MiB --class tray --preview");
    assert!(preview.contains("circuit: c1:0 s1:0 s1:"), "{preview}");
    assert!(preview.contains("create segment new.0 of 65536 pages"), "{preview}");
    assert_eq!(place.circuits(), "none", "a preview changes nothing");
    let begun = Instant::now();
    let told = place.done("reserve --compute c1 --memory 256MiB --class tray");
    println!("reserve took {:?}", begun.elapsed());
    assert_eq!(told, "reservation 1: applied\n");
    let server = server(&place, 1);
    assert_eq!(place.all_segments(), [("s1.0".to_owned(), 256 << 20)], "the memory servers have it");
    assert_eq!(place.circuits(), if server.contains("0.3:") { "0-4" } else { "0-5" });
    assert!(place.reaches("c1", server), "over its circuit");
    assert!(!place.reaches("c2", server), "another brick has none");
    assert_eq!(place.table("c1", "10.78.0.1"), ["s1.0"]);
    place.refused("brick remove c1", "reservation 1");
    assert_eq!(place.done("release 1"), "reservation 1: released\n");
    assert_eq!(place.all_segments(), Vec::new());
    assert_eq!(place.circuits(), "none");
    assert_eq!(place.table("c1", "10.78.0.1"), Vec::<String>::new());
    assert!(!place.reaches("c1", server), "after the release");
    assert_eq!(place.json("reservation list"), Value::Array(Vec::new()));
    let kinds: Vec<_> =
        place.json("operation list").as_array().unwrap().iter().map(|one| one["kind"].clone()).collect();
    assert_eq!(kinds, ["reservation.release", "reservation.create", "rack.register"], "the newest first");
}

#[test]
fn root_a_controller_that_is_killed_in_the_middle_goes_on_where_it_was() {
    let place = Place::with_rack("k");
    for wait_ms in [0, 2, 5, 10, 15, 20, 30, 50] {
        let mut reserving =
            place.command(&["reserve", "--compute", "c1", "--memory", "64MiB", "--class", "tray"]);
        let mut reserving = reserving.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait_ms));
        place.kill_controller();
        reserving.wait().unwrap();
        assert!(place.ask("brick list").stderr.contains("controller.sock"), "it is told that nobody answers");
        assert!(place.up().contains("1 programs started"));
        // What was accepted ends well, whatever it was at; what was not accepted never was.
        for operation in place.json("operation list --state running").as_array().unwrap() {
            place.done(&format!("operation wait {}", operation["id"].as_str().unwrap()));
        }
        let reservations = place.json("reservation list");
        let reservations = reservations.as_array().unwrap();
        assert_eq!(place.circuits() == "none", reservations.is_empty(), "killed after {wait_ms} ms");
        for reservation in reservations {
            assert_eq!(reservation["state"], "applied");
            assert!(place.reaches("c1", server(&place, reservation["id"].as_u64().unwrap())));
            place.done(&format!("release {}", reservation["id"]));
        }
        assert_eq!(place.circuits(), "none");
    }
}

#[test]
fn root_what_somebody_else_changed_is_told_within_bounded_time() {
    let place = Place::with_rack("d");
    place.done("reserve --compute c2 --memory 64MiB --class tray");
    let circuit = place.circuits();
    place.done(&format!("rack disconnect {} s1 {circuit}", place.name()));
    let begun = Instant::now();
    while !place.done("events").contains("rack.difference") {
        assert!(begun.elapsed() < Duration::from_secs(15), "{}", place.done("events"));
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("told after {:?}", begun.elapsed());
    // The switch has seen a newer reign, and refuses older ones.
    place.refused(&format!("rack connect {} s1 {circuit} --generation 1", place.name()), "overtaken");
}

#[test]
fn root_a_circuit_that_was_lost_is_told_and_set_again_and_the_program_goes_on() {
    let place = Place::with_rack("l");
    place.done("reserve --compute c1 --memory 64MiB --class tray");
    let (circuit, server) = (place.circuits(), server(&place, 1));
    let mut running = place.command(&["rack", "exec", place.name(), "c1", "--"]);
    let options = ["run", "--memory-server", server, "--local", "16MiB", "--lost-after", "60", "--"];
    running.arg(rackmem()).args(options).arg(c_program("fill_check")).arg("192").stdout(Stdio::piped());
    let mut running = running.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    // What a wrong hand at the switch does: the kernel forgets both directions.
    for port in circuit.split('-') {
        let device = format!("p{port}");
        let namespace = format!("{}:s1", place.name());
        let words = ["netns", "exec", &namespace, "tc", "filter", "del", "dev", &device, "ingress"];
        assert!(Command::new("ip").args(words).status().unwrap().success());
    }
    assert_eq!(running.try_wait().unwrap(), None, "it is in the middle of its work");
    place.told("rack.difference");
    place.told("rack.repair");
    let begun = Instant::now();
    while place.circuits() != circuit {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", place.done("events"));
        std::thread::sleep(Duration::from_millis(50));
    }
    let ended = running.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success() && told.contains("as written"), "{ended:?}");
    let repairs = place.json("operation list");
    let repair = repairs.as_array().unwrap().iter().find(|one| one["kind"] == "rack.repair").unwrap();
    assert_eq!((repair["state"].as_str(), repair["by"].as_str()), (Some("done"), Some("controller")));
    place.done("release 1");
    assert_eq!(place.circuits(), "none");
}

#[test]
fn root_agents_and_memory_servers_that_are_killed_in_the_middle_leave_nothing_half_done() {
    let place = Place::with_rack("x");
    for (victim, wait_ms) in ["c1", "m1"].into_iter().flat_map(|one| [0, 10, 20, 40, 80].map(|ms| (one, ms)))
    {
        let what = format!("{victim} killed after {wait_ms} ms");
        let mut reserving =
            place.command(&["reserve", "--compute", "c1", "--memory", "64MiB", "--class", "tray"]);
        let mut reserving = reserving.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait_ms));
        place.kill_brick(victim);
        assert!(place.up().contains("1 programs started"), "{what}");
        reserving.wait().unwrap();
        place.settled();
        for reservation in place.json("reservation list").as_array().unwrap() {
            assert_eq!(reservation["state"], "applied", "{what}");
            let id = reservation["id"].as_u64().unwrap();
            assert_eq!(place.table("c1", "10.78.0.1"), [format!("s{id}.0")], "{what}");
            assert_ne!(place.circuits(), "none", "{what}");
            // A memory server that was killed comes back empty, and that is believed.
            let begun = Instant::now();
            let is_lost = || place.json(&format!("reservation show {id}"))["mappings"][0]["lost"] == true;
            while place.all_segments().is_empty() != is_lost() {
                assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
                std::thread::sleep(Duration::from_millis(100));
            }
            place.done(&format!("release {id}"));
        }
        assert_eq!((place.circuits().as_str(), place.all_segments()), ("none", Vec::new()), "{what}");
        assert_eq!(place.table("c1", "10.78.0.1"), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn root_what_is_killed_in_the_middle_of_a_resize_or_a_release_leaves_nothing_half_done() {
    let place = Place::with_rack("y");
    for (victim, wait_ms) in
        ["the controller", "c1", "m1"].into_iter().flat_map(|one| [0, 6, 12, 20].map(|ms| (one, ms)))
    {
        let kill_during = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let asking = Process::start(&mut place.command(&words), LIMIT);
            std::thread::sleep(Duration::from_millis(wait_ms));
            match victim {
                "the controller" => place.kill_controller(),
                brick => place.kill_brick(brick),
            }
            assert!(place.up().contains("1 programs started"), "{line}");
            // It may have been told that nobody answers.
            asking.finish();
            place.settled();
        };
        place.done("reserve --compute c1 --memory 64MiB --class tray");
        let id = place.json("reservation list")[0]["id"].as_u64().unwrap();
        kill_during(&format!("reservation resize {id} --memory 192MiB"));
        let what = format!("{victim} killed {wait_ms} ms into a resize: {}", place.done("operation list"));
        let view = place.json(&format!("reservation show {id}"));
        let mappings = view["mappings"].as_array().unwrap();
        let sizes = mappings.iter().map(|one| one["segment"]["size"].as_u64().unwrap());
        let memory = view["memory"].as_u64().unwrap();
        assert_eq!((view["state"].as_str(), sizes.sum::<u64>()), (Some("applied"), memory), "{what}");
        assert!([64 << 20, 192 << 20].contains(&memory), "{what}");
        let mut table = place.table("c1", "10.78.0.1");
        table.sort();
        let mut attached: Vec<&str> =
            mappings.iter().map(|one| one["attachment"].as_str().unwrap()).collect();
        attached.sort_unstable();
        assert_eq!(table, attached, "{what}");
        let there: u64 = place.all_segments().iter().map(|(_, size)| size).sum();
        assert!(there == memory || victim == "m1", "{there} of {memory} on the memory bricks; {what}");

        kill_during(&format!("release {id}"));
        let what = format!("{victim} killed {wait_ms} ms into a release: {}", place.done("operation list"));
        if place.json("reservation list") != Value::Array(Vec::new()) {
            // It was not accepted yet, or ended undone.
            place.done(&format!("release {id}"));
        }
        assert_eq!((place.circuits().as_str(), place.all_segments()), ("none", Vec::new()), "{what}");
        assert_eq!(place.table("c1", "10.78.0.1"), Vec::<String>::new(), "{what}");
    }
}

/// A controller on the loopback device, without bricks behind it.
fn alone(place: &mut Place, options: &[&str]) -> Process {
    let address = free_address();
    let state = place.path("state");
    let mut command =
        place.command(&["controller", "--listen", &address, "--state", state.to_str().unwrap()]);
    let mut process = Process::start(command.args(options), LIMIT);
    process.expect_line(&format!("controller: on {address}"));
    place.controller = Some(address);
    process
}

#[test]
fn a_controller_whose_log_nobody_reads_serves_on_and_ends_when_told() {
    let mut place = Place::new();
    let address = free_address();
    let state = place.path("state").to_str().unwrap().to_owned();
    let mut command = place.command(&["controller", "--listen", &address, "--state", &state]);
    let mut controller = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 1];
    controller.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    drop((controller.stdout.take(), controller.stderr.take()));
    place.controller = Some(address);
    assert_eq!(place.json("brick list"), Value::Array(Vec::new()));
    kill_process(Pid::from_child(&controller), Signal::TERM).unwrap();
    let begun = Instant::now();
    while controller.try_wait().unwrap().is_none() {
        if begun.elapsed() > LIMIT {
            controller.kill().unwrap();
            controller.wait().unwrap();
            panic!("told to end, it did not");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(controller.wait().unwrap().success());
}

#[test]
fn what_is_wrong_is_said_in_one_sentence_and_changes_nothing() {
    let mut place = Place::new();
    // Nothing has an address, so nothing is asked.
    let file = place.write("dark.toml", SMALL_RACK);
    let _controller = alone(&mut place, &["--rack", &file]);
    place.done("brick drain m2");
    place.done("brick drain m2 --end");
    place.refused("brick show m9", "m9");
    place.refused("brick drain m9", "m9");
    place.refused("brick register m1 --tray t1 --memory 1GiB", "m1");
    place.refused("brick register m3 --tray t9 --memory 1GiB", "t9");
    place.refused("brick register m3 --tray t1 --memory 1GiB --cable 0=s1:0", "s1:0");
    place.refused("brick register m3 --tray t1 --memory 1GiB --cable 0=s1", "PORT=SWITCH:PORT");
    place.refused("brick register m3 --tray t1", "--memory");
    let wrong = place.write("wrong.toml", "[[rack]]\nname = 7\n");
    place.refused(&format!("brick register --rack {wrong}"), "line 2, column");
    place.refused("reserve --compute c9 --memory 1GiB", "c9");
    place.refused("reserve --memory 1GiB --class near", "near");
    place.refused("reserve --memory 0", "reserves nothing");
    place.refused("reserve --memory 1GiB --expires 5", "--hold");
    place.refused("reservation show 9", "9");
    place.refused("apply 9", "9");
    place.refused("release 9", "9");
    place.refused("operation show 00000000-0000-0000-0000-000000000000", "00000000");
    // A class that cannot be met is explained brick by brick.
    let ended = place.ask("reserve --compute c1 --memory 100GiB --class tray");
    assert!(!ended.status.success(), "{ended:?}");
    let why = ended.stderr.split("rackmem why ").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    let told = place.done(&format!("why {why}"));
    for brick in ["c1", "m1", "m2"] {
        assert!(told.lines().any(|line| line.starts_with(brick)), "{told}");
    }
    assert_eq!(place.json("brick list").as_array().unwrap().len(), 4);
    // An address that is missing is told, and what was done is undone.
    place.refused("reserve --compute c1 --memory 64MiB --class tray", "without an address");
    assert_eq!(place.json("reservation list"), Value::Array(Vec::new()));
    place.done("brick remove c2");
    assert_eq!(place.json("brick list").as_array().unwrap().len(), 3);
}

#[test]
fn what_is_only_held_expires_and_a_restarted_controller_knows_what_it_knew() {
    let mut place = Place::new();
    let file = place.write("dark.toml", SMALL_RACK);
    let controller = alone(&mut place, &["--rack", &file]);
    let held = place.done("reserve --compute c1 --memory 64MiB --class tray --hold --expires 3600");
    assert!(held.contains("reservation 1: held"), "{held}");
    drop(controller);
    let _controller = alone(&mut place, &["--rack", &file]);
    assert_eq!(place.json("reservation show 1")["state"], "reserved");
    assert_eq!(place.json("brick list").as_array().unwrap().len(), 4, "the file is not registered twice");
    place.done("reserve --compute c2 --memory 64MiB --class tray --hold --expires 1");
    std::thread::sleep(Duration::from_millis(2500));
    place.refused("apply 2", "expired");
    assert_eq!(place.json("reservation list").as_array().unwrap().len(), 1);
}

#[test]
fn tokens_say_who_may_do_what_and_quotas_how_much() {
    let mut place = Place::new();
    let tokens = place.write(
        "tokens.json",
        r#"[{"name":"root","token":"0123456789abcdef0","role":"admin"},
            {"name":"alice","token":"0123456789abcdef1","role":"member","project":"p1"},
            {"name":"late","token":"0123456789abcdef2","role":"admin","expires_ms":1},
            {"name":"new","token":"0123456789abcdef3","role":"join"}]"#,
    );
    let quotas = place.write("quotas.json", r#"{"default":{},"projects":{"p1":{"tray":67108864}}}"#);
    let file = place.write("dark.toml", SMALL_RACK);
    let _controller = alone(&mut place, &["--rack", &file, "--tokens", &tokens, "--quotas", &quotas]);
    let token = |owner: &str, last: char| place.write(owner, &format!("0123456789abcdef{last}\n"));
    let (root, alice) = (token("root", '0'), token("alice", '1'));
    let (late, new, nobody) = (token("late", '2'), token("new", '3'), token("nobody", '9'));
    place.refused("brick list", "a token is required");
    place.refused(&format!("brick list --token-file {nobody}"), "wrong");
    place.refused(&format!("brick list --token-file {late}"), "expired");
    place.refused(&format!("brick list --token-file {new}"), "too small");
    place.refused(&format!("brick remove c1 --token-file {alice}"), "too small");
    place.done(&format!("brick register m3 --tray t1 --memory 1GiB --cable 0=s1:2 --token-file {new}"));
    let hold = "reserve --compute c1 --class tray --hold";
    place.refused(&format!("{hold} --memory 128MiB --token-file {alice}"), "'p1' may have 64MiB");
    place.refused(&format!("{hold} --memory 1MiB --project p2 --token-file {alice}"), "p2");
    place.done(&format!("{hold} --memory 64MiB --token-file {alice}"));
    // Who did what is on record.
    let operations = place.json(&format!("operation list --token-file {root}"));
    let by: Vec<_> = operations.as_array().unwrap().iter().map(|one| one["by"].as_str().unwrap()).collect();
    assert!(by.contains(&"alice") && by.contains(&"new"), "{by:?}");
}

#[test]
fn a_memory_server_announces_itself_and_may_do_nothing_else() {
    let mut place = Place::new();
    let tokens = place.write(
        "tokens.json",
        r#"[{"name":"root","token":"0123456789abcdef0","role":"admin"},
            {"name":"new","token":"0123456789abcdef3","role":"join"}]"#,
    );
    let file = place.write("dark.toml", SMALL_RACK);
    let controller = alone(&mut place, &["--rack", &file, "--tokens", &tokens]);
    let root = place.write("root", "0123456789abcdef0\n");
    let new = place.write("new", "0123456789abcdef3\n");
    let address = free_address();
    let at = place.controller.clone().unwrap();
    let join = |brick: &str, port: &str, listen: &str| {
        let mut command = place.command(&["memory-server", "--size", "64MiB", "--listen", listen]);
        command.args(["--controller", &at, "--join-token-file", &new, "--brick", brick, "--tray", "t1"]);
        command.args(["--brick-address", listen, "--cable", port]);
        Process::start(&mut command, LIMIT)
    };
    let server = join("m3", "0=s1:2", &address);
    let begun = Instant::now();
    let show = format!("brick show m3 --token-file {root}");
    while !place.ask(&show).status.success() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it has not come");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(place.json(&show)["capacity"], 64 << 20);
    // The port of its cable is taken: it serves, and is not registered.
    let other = free_address();
    let mut refused = join("m4", "0=s1:2", &other);
    refused.expect_line(&format!("memory server: 64MiB on {other}"));
    std::thread::sleep(Duration::from_millis(500));
    place.refused(&format!("brick show m4 --token-file {root}"), "m4");
    refused.signal(Signal::TERM);
    let told = refused.finish().stderr;
    assert!(told.contains("s1:2"), "{told}");
    drop((server, controller));
}
