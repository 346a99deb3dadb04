//! Clients that should not be let in, and bytes that are no protocol. After each the server goes on.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{NONCE, OWNER, Refused, Running, tcp_config, unix_client, unix_config};
use rackmem_memory_server::{Server, ServerConfig, ServerError, Shutdown};
use rackmem_types::Bytes;
use rackmem_wire::{Answer, ErrorCode, Request, VERSION};

const TOKEN: &[u8] = b"a pre-shared token of the test";

fn still_serves(running: &Running) {
    let mut client = running.connect();
    client.hello();
}

#[test]
fn the_token_opens_and_a_wrong_one_does_not() {
    let running = Running::new(&ServerConfig { token: Some(TOKEN.to_vec()), ..tcp_config(10) });
    let mut good = running.connect();
    let welcome = good.hello();
    assert!(welcome.auth_required);
    good.auth(TOKEN, &welcome).unwrap();
    good.create("x", 1, 0).unwrap();

    let mut wrong = running.connect();
    let welcome = wrong.hello();
    let Refused(code, _, text) = wrong.auth(b"another token of the test", &welcome).unwrap_err();
    assert_eq!(code, ErrorCode::AuthFailed);
    assert!(text.contains("token file"), "{text}");
    assert!(wrong.is_closed());

    let mut without = running.connect();
    without.hello();
    assert_eq!(without.create("x", 1, 0).unwrap_err().0, ErrorCode::AuthRequired);
    assert!(without.is_closed());
}

#[test]
fn another_version_is_told_so() {
    let running = Running::tcp(10);
    let mut client = running.connect();
    let request = Request::Hello { version_min: VERSION + 1, version_max: VERSION + 3, nonce: NONCE };
    let Refused(code, version, text) = client.ask(&request, |_| ()).unwrap_err();
    assert_eq!((code, version), (ErrorCode::Version, VERSION.into()));
    assert!(text.contains("same release"), "{text}");
    assert!(client.is_closed());
}

#[test]
fn garbage_closes_only_its_own_connection() {
    let running = Running::tcp(10);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100], &[0xff; 3000]] {
        let mut stream = TcpStream::connect(("127.0.0.1", running.port())).unwrap();
        stream.write_all(garbage).unwrap();
        let mut answer = Vec::new();
        // What was sent behind the first bytes may reset the connection.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "no answer in a protocol that is not the client's");
    }
    still_serves(&running);
}

#[test]
fn a_lying_frame_gets_one_clear_error() {
    let running = Running::tcp(10);
    for greeted in [false, true] {
        let mut client = running.connect();
        if greeted {
            client.hello();
        }
        let mut frame = Vec::new();
        Request::SegmentList.encode(1, &mut frame);
        frame[8..12].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
        // What follows must not reset the connection before the reason has arrived.
        frame.resize(1 << 20, 0);
        client.stream.write_all(&frame).unwrap();
        let Refused(code, _, text) = client.answer(|_, answer| panic!("{answer:?}")).unwrap_err();
        assert_eq!(code, ErrorCode::Malformed);
        assert!(text.contains("2147483647 bytes"), "{text}");
        assert!(client.is_closed());
    }
    still_serves(&running);
}

#[test]
fn strangers_cannot_send_large_frames() {
    let running = Running::new(&ServerConfig { token: Some(TOKEN.to_vec()), ..tcp_config(10) });
    let mut client = running.connect();
    client.hello();
    let mut frame = Vec::new();
    Request::Write { segment: 1, records: &[rackmem_wire::WriteRecord::new(0, 1, 0)], data: &[[0; 4096]] }
        .encode(1, &mut frame);
    client.stream.write_all(&frame[..100]).unwrap();
    assert_eq!(client.answer(|_, answer| panic!("{answer:?}")).unwrap_err().0, ErrorCode::Malformed);
}

#[test]
fn a_silent_client_is_not_waited_for() {
    let mut config = tcp_config(10);
    config.limits.greeting = Duration::from_millis(200);
    let running = Running::new(&config);
    let begin = Instant::now();
    let mut silent = running.connect();
    let mut trickling = running.connect();
    trickling.stream.write_all(b"RKM").unwrap();
    assert!(silent.is_closed() && trickling.is_closed());
    assert!(begin.elapsed() < Duration::from_secs(2));
    let mut client = running.connect();
    client.hello();
    std::thread::sleep(Duration::from_millis(400));
    client.ask(&Request::Ping, |answer| assert_eq!(answer, Answer::Pong)).unwrap();
}

/// A client that asks for much and never reads is closed after the send timeout.
#[test]
fn a_client_that_takes_no_answer_is_closed() {
    let mut config = tcp_config(1000);
    config.limits.send = Duration::from_millis(200);
    let running = Running::new(&config);
    let mut client = running.connect();
    client.hello();
    let segment = client.create("x", 256, 0).unwrap();
    for page in 0..256 {
        client.write(segment, page, 1, 1).unwrap();
    }
    let pages: Vec<_> = (0..256).map(rackmem_wire::U64::new).collect();
    for _ in 0..64 {
        client.send(&Request::Read { segment, pages: &pages });
    }
    let mut other = running.connect();
    other.hello();
    let begin = Instant::now();
    let connections = |status: Answer<'_>| match status {
        Answer::Status(status) => status.connections,
        other => panic!("{other:?}"),
    };
    while other.ask(&Request::Stat, connections).unwrap() != 1 {
        assert!(begin.elapsed() < Duration::from_secs(5), "the client is never closed");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn limits_are_kept_and_named() {
    let mut config = tcp_config(100);
    config.limits.connections = 2;
    config.limits.segments_per_connection = 1;
    config.limits.pages_per_connection = 50;
    let running = Running::new(&config);
    let (mut one, mut two, mut three) = (running.connect(), running.connect(), running.connect());
    one.hello();
    two.hello();
    let Refused(code, limit, text) = three.answer(|_, answer| panic!("{answer:?}")).unwrap_err();
    assert_eq!((code, limit), (ErrorCode::Limit, 2));
    assert!(text.contains("2 connections"), "{text}");
    assert_eq!(one.create("x", 51, 0).unwrap_err().1, 50);
    one.create("x", 10, 0).unwrap();
    assert_eq!(one.create("y", 10, 0).unwrap_err().0, ErrorCode::Limit);
    assert_eq!(two.create("y", 0, 0).unwrap_err().0, ErrorCode::Limit);
}

#[test]
fn a_drained_server_finishes_what_has_arrived() {
    let running = Running::tcp(1000);
    let mut client = running.connect();
    client.hello();
    let segment = client.create("x", 10, 0).unwrap();
    for _ in 0..100 {
        client.send(&Request::Read { segment, pages: &[rackmem_wire::U64::new(1)] });
    }
    client.send(&Request::Ping);
    // The loopback interface has delivered all of it by now.
    let port = running.port();
    running.stop();
    for _ in 0..100 {
        client.answer(|_, answer| assert!(matches!(answer, Answer::Pages { .. }))).unwrap();
    }
    client.answer(|_, answer| assert_eq!(answer, Answer::Pong)).unwrap();
    assert_eq!(client.answer(|_, answer| panic!("{answer:?}")).unwrap_err().0, ErrorCode::Draining);
    assert!(client.is_closed());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn a_restarted_server_refuses_old_segments() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.sock");
    let running = Running::new(&unix_config(10, &path));
    let mut client = unix_client(&path);
    let epoch = client.hello().epoch;
    let segment = client.create("x", 1, 60_000).unwrap();
    let error = Server::start(&unix_config(10, &path), &Shutdown::new().unwrap()).unwrap_err();
    assert!(matches!(error, ServerError::SocketInUse(_)), "{error}");
    running.stop();
    let _running = Running::new(&unix_config(10, &path));
    let mut client = unix_client(&path);
    assert_ne!(client.hello().epoch, epoch);
    assert_eq!(client.open(segment, OWNER, epoch).unwrap_err().0, ErrorCode::Epoch);
}

#[test]
fn a_server_that_nothing_guards_stays_on_loopback() {
    let start = |config: &ServerConfig| Server::start(config, &Shutdown::new().unwrap()).map(drop);
    let mut config = ServerConfig::new(Bytes(1 << 20), vec!["0.0.0.0:0".parse().unwrap()]);
    let error = start(&config).unwrap_err().to_string();
    assert!(error.contains("--insecure") && error.contains("--token-file"), "{error}");
    config.token = Some(b"short".to_vec());
    assert!(matches!(start(&config), Err(ServerError::ShortToken(5))));
    config.token = None;
    config.insecure = true;
    drop(Running::new(&config));
}
