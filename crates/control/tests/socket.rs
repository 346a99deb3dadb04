//! A server and its clients over real sockets, with a small handler that counts.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rackmem_control::{
    Access, Client, ControlError, DetachReport, Handler, LendReport, Lending, REQUEST_BYTES_MAX, Server,
    TargetStats, targets_in,
};
use rackmem_types::Bytes;

const PID: u32 = 4321;

/// A page that nobody touches.
const SILENT: u64 = 0x5000;

/// Remembers its limit, and touches a watched page once a millisecond.
#[derive(Default)]
struct Counter {
    limit: Mutex<Bytes>,
    asked: AtomicU64,
    watches: AtomicUsize,
}

impl Handler for Counter {
    fn stats(&self) -> TargetStats {
        let faults = self.asked.fetch_add(1, Ordering::Relaxed);
        TargetStats { pid: PID, limit: *self.limit.lock().unwrap(), faults, ..TargetStats::default() }
    }

    fn limit_set(&self, limit: Bytes) -> Result<(), String> {
        if limit == Bytes(0) {
            return Err("a limit of 0 leaves the program no memory".to_owned());
        }
        *self.limit.lock().unwrap() = limit;
        Ok(())
    }

    fn detach(&self) -> Result<DetachReport, String> {
        thread::sleep(Duration::from_millis(100));
        Ok(DetachReport { pages_fetched: 7, took_us: 100_000 })
    }

    fn watch(&self, address: u64, report: &mut dyn FnMut(Option<Access>) -> bool) -> Result<(), String> {
        if address == 0 {
            return Err("address 0x0 is not under management".to_owned());
        }
        self.watches.fetch_add(1, Ordering::SeqCst);
        let access = (address != SILENT).then_some(Access { at_us: 1, thread: PID, address, write: true });
        while report(access) && report(None) {
            thread::sleep(Duration::from_millis(1));
        }
        self.watches.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    fn lend(&self, lending: Lending) -> Result<LendReport, String> {
        match lending.servers.len() {
            0 => Err("no memory server was given".to_owned()),
            1 => Ok(LendReport::InUse("segment 7 is in use".to_owned())),
            _ => Ok(LendReport::InForce),
        }
    }
}

struct Setup {
    directory: tempfile::TempDir,
    handler: Arc<Counter>,
    server: Server,
}

fn setup() -> Setup {
    let directory = tempfile::tempdir().unwrap();
    let handler = Arc::new(Counter::default());
    let server = Server::bind_in(directory.path(), PID).unwrap();
    server.serve(Arc::<Counter>::clone(&handler)).unwrap();
    Setup { directory, handler, server }
}

impl Setup {
    fn client(&self) -> Client {
        Client::open_in(self.directory.path(), PID).unwrap()
    }

    /// Sends raw bytes and gives the one line that comes back.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.server.path()).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer
    }
}

#[test]
fn questions_are_answered_in_order_on_one_connection() {
    let setup = setup();
    let mut client = setup.client();
    assert_eq!(client.stats().unwrap().faults, 0);
    client.limit_set(Bytes(256 << 20)).unwrap();
    let stats = client.stats().unwrap();
    assert_eq!((stats.pid, stats.limit, stats.faults), (PID, Bytes(256 << 20), 1));
    let refused = client.limit_set(Bytes(0)).unwrap_err();
    assert_eq!(refused.to_string(), "a limit of 0 leaves the program no memory");
    assert_eq!(client.stats().unwrap().faults, 2, "a refusal leaves the connection usable");
    let mut lend = |servers: &[&str]| {
        let servers = servers.iter().map(|server| server.parse().unwrap()).collect();
        client.lend(Lending { servers, ..Lending::default() })
    };
    assert!(lend(&[]).is_err());
    assert_eq!(lend(&["a:1"]).unwrap(), LendReport::InUse("segment 7 is in use".to_owned()));
    assert_eq!(lend(&["a:1", "b:1"]).unwrap(), LendReport::InForce);
}

#[test]
fn the_socket_is_for_its_owner_and_goes_with_the_server() {
    let setup = setup();
    let mode = setup.server.path().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(targets_in(setup.directory.path()).unwrap(), [PID]);
    let Setup { directory, server, .. } = setup;
    drop(server);
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    let gone = Client::open_in(directory.path(), PID).unwrap_err();
    assert!(matches!(gone, ControlError::NotAttached(PID)), "{gone}");
}

#[test]
fn a_target_has_one_pager() {
    let setup = setup();
    let second = Server::bind_in(setup.directory.path(), PID).unwrap_err();
    assert!(matches!(second, ControlError::AlreadyAttached(PID)), "{second}");
    assert_eq!(setup.client().stats().unwrap().pid, PID, "the first one is unharmed");
}

#[test]
fn the_socket_of_a_dead_pager_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(directory.path().join(format!("{PID}.sock"))).unwrap());
    let server = Server::bind_in(directory.path(), PID).unwrap();
    server.serve(Arc::new(Counter::default())).unwrap();
    assert_eq!(Client::open_in(directory.path(), PID).unwrap().stats().unwrap().pid, PID);
}

#[test]
fn garbage_gets_a_sentence() {
    let setup = setup();
    let check = |bytes: &[u8], sentence: &str| {
        let answer = setup.raw(bytes);
        assert!(answer.starts_with(&format!("{{\"error\":\"{sentence}")), "{answer}");
    };
    check(b"hello\n", "the request is not JSON");
    check(b"\xff\xfe\x00\n", "the request is not JSON");
    check(b"{\"ask\":\"dance\"}\n", "the request is not understood");
    check(&vec![b' '; REQUEST_BYTES_MAX + 2], "the request is longer than");
    assert_eq!(setup.raw(b"{\"ask\":\"limit_set\",\"limit\":4096}\n"), "{\"ok\":null}\n");
}

#[test]
fn a_watch_streams_until_the_client_goes_away() {
    let setup = setup();
    let mut accesses = setup.client().watch(0x7000).unwrap();
    for _ in 0..3 {
        let access = accesses.next().unwrap().unwrap();
        assert_eq!((access.address, access.write), (0x7000, true));
    }
    assert_eq!(setup.handler.watches.load(Ordering::SeqCst), 1);
    drop(accesses);
    let started = Instant::now();
    while setup.handler.watches.load(Ordering::SeqCst) > 0 {
        assert!(started.elapsed() < Duration::from_secs(5), "the watch goes on without a client");
        thread::sleep(Duration::from_millis(5));
    }
    let refused = setup.client().watch(0).unwrap().next().unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "address 0x0 is not under management");
}

#[test]
fn a_watch_is_ended_from_elsewhere_while_somebody_waits_for_its_next_access() {
    let setup = setup();
    let mut accesses = setup.client().watch(SILENT).unwrap();
    let end = accesses.end().unwrap();
    let waiting = thread::spawn(move || accesses.next().is_none());
    let begin = Instant::now();
    while setup.handler.watches.load(Ordering::SeqCst) == 0 {
        assert!(begin.elapsed() < Duration::from_secs(5), "the watch does not begin");
        thread::sleep(Duration::from_millis(1));
    }
    drop(end);
    assert!(waiting.join().unwrap(), "there was no access, and no error");
    while setup.handler.watches.load(Ordering::SeqCst) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(5), "the watch goes on without a client");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_closing_server_finishes_its_answer_and_ends_its_watches() {
    let setup = setup();
    let mut accesses = setup.client().watch(0x7000).unwrap();
    accesses.next().unwrap().unwrap();
    let mut client = setup.client();
    let detaching = thread::spawn(move || client.detach());
    // Half way through the handler's 100 ms.
    thread::sleep(Duration::from_millis(50));
    drop(setup.server);
    assert_eq!(detaching.join().unwrap().unwrap().pages_fetched, 7);
    assert!(accesses.all(|access| access.is_ok()), "the watch ends, and ends without an error");
}

#[test]
fn one_connection_too_many_is_told_so() {
    let setup = setup();
    let clients: Vec<_> = (0..64)
        .map(|_| {
            let mut client = setup.client();
            client.stats().unwrap();
            client
        })
        .collect();
    let refused = setup.client().stats().unwrap_err();
    assert!(refused.to_string().contains("64 connections"), "{refused}");
    drop(clients);
    let started = Instant::now();
    while setup.client().stats().is_err() {
        assert!(started.elapsed() < Duration::from_secs(5), "closed connections are never given back");
        thread::sleep(Duration::from_millis(5));
    }
}
