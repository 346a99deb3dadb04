//! The commands that ask a pager, against a real control socket with a small handler behind it.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rackmem_control::{Access, DetachReport, Handler, Latency, Server, ServerStats, TargetStats};
use rackmem_types::Bytes;

const PID: u32 = 4242;

struct Target {
    limit: Mutex<Bytes>,
    clock_us: AtomicU64,
}

impl Handler for Target {
    /// Each sample is a quarter of a second and 250 faults later.
    fn stats(&self) -> TargetStats {
        let uptime_us = self.clock_us.fetch_add(250_000, Ordering::Relaxed);
        TargetStats {
            pid: PID,
            command: "redis-server".to_owned(),
            uptime_us,
            faults: uptime_us / 1000,
            managed: Bytes(1 << 30),
            local: Bytes(256 << 20),
            far: Bytes(768 << 20),
            limit: *self.limit.lock().unwrap(),
            fault_latency: Latency { p50_us: 20.0, p99_us: 90.0, max_us: 1200.0 },
            servers: vec![ServerStats {
                address: "10.0.0.7:7070".parse().unwrap(),
                reserved: Bytes(1 << 30),
                used: Bytes(768 << 20),
                state: "lost".to_owned(),
            }],
            warnings: vec!["the memory server 10.0.0.7:7070 is lost".to_owned()],
            ..TargetStats::default()
        }
    }

    fn limit_set(&self, limit: Bytes) -> Result<(), String> {
        *self.limit.lock().unwrap() = limit;
        Ok(())
    }

    fn detach(&self) -> Result<DetachReport, String> {
        Ok(DetachReport { pages_fetched: 1024, took_us: 12_345 })
    }

    fn watch(&self, address: u64, report: &mut dyn FnMut(Option<Access>) -> bool) -> Result<(), String> {
        report(Some(Access { at_us: 1_500_000, thread: PID, address, write: false }));
        report(Some(Access { at_us: 2_000_000, thread: PID, address: address + 8, write: true }));
        Err("the page is no longer mapped".to_owned())
    }
}

struct Setup {
    directory: tempfile::TempDir,
    target: Arc<Target>,
    _server: Server,
}

fn setup() -> Setup {
    let directory = tempfile::tempdir().unwrap();
    let target = Arc::new(Target { limit: Mutex::new(Bytes(256 << 20)), clock_us: AtomicU64::new(0) });
    let server = Server::bind_in(directory.path(), PID).unwrap();
    server.serve(Arc::<Target>::clone(&target)).unwrap();
    Setup { directory, target, _server: server }
}

impl Setup {
    fn rackmem(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_rackmem"))
            .args(line.split(' '))
            .env("RACKMEM_RUNTIME_DIR", self.directory.path())
            .env("COLUMNS", "80")
            .output()
            .unwrap()
    }

    /// Standard output of a command that succeeds.
    fn says(&self, line: &str) -> String {
        let output = self.rackmem(line);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard error of a command that fails with code 1.
    fn refuses(&self, line: &str) -> String {
        let output = self.rackmem(line);
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn ps_prints_a_table_that_fits_and_the_warnings() {
    let text = setup().says("ps");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            " PID  COMMAND       MANAGED   LOCAL     FAR   LIMIT  FAULTS/S  P50µs  P99µs",
            "4242  redis-server     1GiB  256MiB  768MiB  256MiB      1000   20.0   90.0",
            "process 4242: the memory server 10.0.0.7:7070 is lost",
        ]
    );
}

#[test]
fn ps_json_has_everything() {
    let rows: serde_json::Value = serde_json::from_str(&setup().says("ps --json")).unwrap();
    let row = &rows[0];
    assert_eq!((&row["pid"], &row["rates"]["faults_per_s"]), (&PID.into(), &1000.0.into()));
    assert_eq!((&row["far"], &row["servers"][0]["state"]), (&(768 << 20).into(), &"lost".into()));
}

#[test]
fn limit_and_detach_say_what_they_did() {
    let setup = setup();
    assert_eq!(setup.says("limit 4242 64MiB"), "process 4242: local limit 64MiB\n");
    assert_eq!(*setup.target.limit.lock().unwrap(), Bytes(64 << 20));
    assert_eq!(setup.says("detach 4242"), "process 4242: detached, 4MiB brought home in 13 ms\n");
}

#[test]
fn watch_prints_a_line_per_access_and_why_it_ended() {
    let setup = setup();
    let output = setup.rackmem("watch 4242 0x7000");
    let lines =
        "     1.500000  thread 4242     read   0x7000\n     2.000000  thread 4242     write  0x7008\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), lines);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "rackmem: the page is no longer mapped\n");
    assert_eq!(output.status.code(), Some(1));
    let json = String::from_utf8(setup.rackmem("watch 4242 28672 --json").stdout).unwrap();
    let first: Access = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((first.address, first.write), (0x7000, false));
}

#[test]
fn refusals_are_one_sentence_with_a_way_out() {
    let setup = setup();
    let check = |line: &str, sentence: &str| {
        let said = setup.refuses(line);
        assert!(said.starts_with("rackmem: ") && said.contains(sentence), "{line}: {said}");
    };
    check("limit 77 64MiB", "process 77 has no far memory: 'rackmem ps' lists");
    check("detach 77", "process 77 has no far memory");
    check("watch 77 0x7000", "process 77 has no far memory");
    check("top", "use 'rackmem ps'");
    let options = "--memory-server 127.0.0.1:1 --local 8MiB";
    check(&format!("attach 4194304 {options}"), "there is no process 4194304");
    check(&format!("attach 2 {options}"), "is a kernel thread");
}

#[test]
fn a_program_that_cannot_be_started_ends_as_in_a_shell() {
    let setup = setup();
    let code = |program: &str| {
        let line = format!("run --memory-server 127.0.0.1:1 --local 8MiB -- {program}");
        setup.rackmem(&line).status.code()
    };
    assert_eq!(code("no-such-program-anywhere"), Some(127));
    assert_eq!(code("/no/such/program"), Some(127));
    assert_eq!(code("/etc/passwd"), Some(126));
    assert_eq!(code("/"), Some(126));
}

#[test]
fn manual_pages_and_completions_are_made() {
    let setup = setup();
    let directory = setup.directory.path().join("man");
    setup.says(&format!("man {}", directory.display()));
    let page = std::fs::read_to_string(directory.join("rackmem-attach.1")).unwrap();
    assert!(page.contains("memory\\-server"), "{page}");
    assert!(setup.says("completions bash").contains("_rackmem"));
}
