//! A pager that is none: a real control socket with a small handler behind it, so that what asks pagers can be tried
//! anywhere.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rackmem_control::{
    Access, DetachReport, Handler, Latency, LendReport, Lending, Server, ServerStats, TargetStats,
};
use rackmem_types::Bytes;

pub(crate) const PID: u32 = 4242;

pub(crate) struct Target {
    pub(crate) limit: Mutex<Bytes>,
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

    fn lend(&self, lending: Lending) -> Result<LendReport, String> {
        Ok(if lending.servers.is_empty() {
            LendReport::InUse("segment 7 on the memory server '10.0.0.7:7070' is in use".to_owned())
        } else {
            LendReport::InForce
        })
    }
}

/// The handler, its socket and the directory of both.
pub(crate) struct Stub {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) target: Arc<Target>,
    _server: Server,
}

impl Stub {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let target = Arc::new(Target { limit: Mutex::new(Bytes(256 << 20)), clock_us: AtomicU64::new(0) });
        let server = Server::bind_in(directory.path(), PID).unwrap();
        server.serve(Arc::<Target>::clone(&target)).unwrap();
        Self { directory, target, _server: server }
    }

    /// Lets `command` find this pager.
    pub(crate) fn known_to<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("RACKMEM_RUNTIME_DIR", self.directory.path())
    }

    /// The command of that line, which does not know of this pager yet.
    pub(crate) fn command(line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rackmem"));
        command.args(line.split(' ')).env("COLUMNS", "80");
        command
    }

    pub(crate) fn rackmem(&self, line: &str) -> Output {
        self.known_to(&mut Self::command(line)).output().unwrap()
    }

    /// Standard output of a command that succeeds.
    pub(crate) fn says(&self, line: &str) -> String {
        let output = self.rackmem(line);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard error of a command that fails with code 1.
    pub(crate) fn refuses(&self, line: &str) -> String {
        let output = self.rackmem(line);
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}
