//! Pages and segments over real sockets.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Client, OWNER, Refused, Running, check_page, tcp_config, unix_client, unix_config};
use rackmem_types::{PAGE_SIZE, PageHash};
use rackmem_wire::{
    Answer, ErrorCode, OwnerToken, PageRange, PageStatus, Request, StoreStatus, U64, WriteRecord,
};

#[test]
fn pages_come_back_as_they_went_over_tcp_and_unix() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.sock");
    let mut config = tcp_config(1000);
    config.listen.extend(unix_config(0, &path).listen);
    let running = Running::new(&config);
    let mut tcp = running.connect();
    let welcome = tcp.hello();
    assert_eq!((welcome.pages_total, welcome.pages_free, welcome.auth_required), (1000, 1000, false));
    let segment = tcp.create("test", 100, 60_000).unwrap();
    assert_eq!(tcp.write(segment, 5, 1, 55), Ok(StoreStatus::Ok));
    assert_eq!(tcp.write(segment, 5, 1, 56), Ok(StoreStatus::Stale));
    assert_eq!(tcp.write(segment, 100, 1, 1), Ok(StoreStatus::OutOfRange));
    assert_eq!(tcp.read(segment, 5), Ok(Ok(55)));
    assert_eq!(tcp.read(segment, 6), Ok(Err(PageStatus::Missing)));
    assert_eq!(tcp.read(segment, 100), Ok(Err(PageStatus::OutOfRange)));
    let mut unix = unix_client(&path);
    assert_eq!(unix.hello().pages_free, 900);
    unix.open(segment, OWNER, welcome.epoch).unwrap();
    assert_eq!(unix.read(segment, 5), Ok(Ok(55)));
    drop(running);
    assert!(!path.exists(), "the socket is removed");
}

/// Reads, overwrites and discards of the same pages, all sent before one answer is read: each read sees what was there
/// when it was asked.
#[test]
fn a_pipeline_is_served_in_order() {
    let running = Running::tcp(1000);
    let mut client = running.connect();
    client.hello();
    let segment = client.create("test", 300, 0).unwrap();
    for version in 1..=40u8 {
        let data = vec![[version; PAGE_SIZE]; 3];
        let checksum = PageHash::of(&data[0]).checksum();
        let records = [0, 1, 7].map(|page| WriteRecord::new(page, version.into(), checksum));
        client.send(&Request::Write { segment, records: &records, data: &data });
        client.send(&Request::Read { segment, pages: &[7, 0, 1, 2].map(U64::new) });
    }
    client.send(&Request::Discard { segment, up_to: u64::MAX, ranges: &[PageRange::new(1, 100)] });
    client.send(&Request::Read { segment, pages: &[0, 1].map(U64::new) });
    client.send(&Request::Ping);
    for version in 1..=40u8 {
        client.answer(|_, answer| assert_eq!(answer, Answer::Stored(&[0; 3]))).unwrap();
        let see = |_, answer: Answer<'_>| {
            let Answer::Pages { records, data } = answer else { panic!("{answer:?}") };
            for (record, data) in records.iter().zip(data) {
                assert_eq!(check_page(record, Some(data)), Ok(version));
            }
            assert_eq!(data.len(), 3);
        };
        client.answer(see).unwrap();
    }
    let see = |_, answer: Answer<'_>| {
        let Answer::Pages { records, data } = answer else { panic!("{answer:?}") };
        assert_eq!(
            (check_page(&records[0], data.first()), check_page(&records[1], None)),
            (Ok(40), Err(PageStatus::Missing))
        );
    };
    client.answer(see).unwrap();
    client.answer(|_, answer| assert_eq!(answer, Answer::Pong)).unwrap();
}

/// A client that sends much and reads late, in frames of the largest size: nothing is lost, and others are served.
#[test]
fn large_frames_and_a_slow_client() {
    let running = Running::tcp(4096);
    let mut client = running.connect();
    client.hello();
    let segment = client.create("large", 2048, 0).unwrap();
    for first in (0..2048u64).step_by(256) {
        let data: Vec<_> = (first..first + 256).map(|page| [page as u8; PAGE_SIZE]).collect();
        let records: Vec<_> = (first..)
            .zip(&data)
            .map(|(page, data)| WriteRecord::new(page, 1, PageHash::of(data).checksum()))
            .collect();
        client
            .ask(&Request::Write { segment, records: &records, data: &data }, |answer| {
                assert_eq!(answer, Answer::Stored(&[0; 256]));
            })
            .unwrap();
    }
    // Scattered, so that each page is a piece of its own: 16 MiB of answers.
    let pages: Vec<_> = (0..256u64).map(|i| U64::new(i * 37 % 2048)).collect();
    for _ in 0..16 {
        client.send(&Request::Read { segment, pages: &pages });
    }
    std::thread::sleep(Duration::from_millis(100));
    let mut other = running.connect();
    other.hello();
    other.ask(&Request::Ping, |answer| assert_eq!(answer, Answer::Pong)).unwrap();
    for _ in 0..16 {
        let see = |_, answer: Answer<'_>| {
            let Answer::Pages { records, data } = answer else { panic!("{answer:?}") };
            assert_eq!(data.len(), 256);
            for ((record, data), page) in records.iter().zip(data).zip(&pages) {
                assert_eq!((check_page(record, Some(data)), record.page), (Ok(page.get() as u8), *page));
            }
        };
        client.answer(see).unwrap();
    }
}

#[test]
fn only_the_owner_and_only_in_this_epoch() {
    let running = Running::tcp(10);
    let (mut owner, mut thief) = (running.connect(), running.connect());
    let epoch = owner.hello().epoch;
    thief.hello();
    let segment = owner.create("mine", 1, 0).unwrap();
    let code = |result: Result<(), Refused>| result.unwrap_err().0;
    assert_eq!(code(thief.open(segment, OwnerToken([8; 16]), epoch)), ErrorCode::NotOwner);
    assert_eq!(code(thief.open(segment, OWNER, epoch + 1)), ErrorCode::Epoch);
    assert_eq!(code(thief.open(segment + 1, OWNER, epoch)), ErrorCode::NoSegment);
    assert_eq!(thief.read(segment, 0).unwrap_err().0, ErrorCode::NoSegment);
    assert_eq!(thief.write(segment, 0, 1, 1).unwrap_err().0, ErrorCode::NoSegment);
    assert_eq!(code(thief.ask(&Request::SegmentDestroy { segment }, |_| ())), ErrorCode::NoSegment);
    assert_eq!(code(owner.ask(&Request::SegmentMap { segment }, |_| ())), ErrorCode::NotLocal);
}

#[test]
fn a_full_server_says_what_is_free_and_a_destroyed_segment_frees_it() {
    let running = Running::tcp(100);
    let mut client = running.connect();
    client.hello();
    let segment = client.create("first", 70, 60_000).unwrap();
    let Refused(code, free, text) = client.create("second", 31, 0).unwrap_err();
    assert_eq!((code, free), (ErrorCode::Full, 30));
    assert!(text.contains("120KiB free"), "{text}");
    client.write(segment, 3, 1, 1).unwrap();
    let mut other = running.connect();
    let epoch = other.hello().epoch;
    other.open(segment, OWNER, epoch).unwrap();
    client
        .ask(&Request::SegmentList, |answer| {
            let Answer::Segments(list) = answer else { panic!("{answer:?}") };
            let info = list.iter().next().unwrap();
            assert_eq!(
                (info.name, info.pages, info.filled, info.attached, list.len()),
                ("first", 70, 1, 2, 1)
            );
        })
        .unwrap();
    client.ask(&Request::SegmentDestroy { segment }, |answer| assert_eq!(answer, Answer::Ok)).unwrap();
    assert_eq!(other.read(segment, 3).unwrap_err().0, ErrorCode::NoSegment);
    client.create("second", 100, 0).unwrap();
}

#[test]
fn a_lease_lets_the_owner_come_back_and_then_ends() {
    let running = Running::tcp(100);
    let mut first = running.connect();
    let epoch = first.hello().epoch;
    let segment = first.create("leased", 50, 600).unwrap();
    first.write(segment, 1, 1, 11).unwrap();
    drop(first);
    std::thread::sleep(Duration::from_millis(200));
    let mut second = running.connect();
    second.hello();
    second.open(segment, OWNER, epoch).unwrap();
    assert_eq!(second.read(segment, 1), Ok(Ok(11)));
    drop(second);
    let mut third = running.connect();
    let begin = Instant::now();
    third.hello();
    let free = |client: &mut Client<TcpStream>| {
        client
            .ask(&Request::Stat, |answer| match answer {
                Answer::Status(status) => status.pages_total - status.pages_reserved,
                other => panic!("{other:?}"),
            })
            .unwrap()
    };
    assert_eq!(free(&mut third), 50);
    while free(&mut third) != 100 {
        assert!(begin.elapsed() < Duration::from_secs(5), "the lease never ends");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(begin.elapsed() > Duration::from_millis(500), "the lease ended too soon");
    assert_eq!(third.open(segment, OWNER, epoch).unwrap_err().0, ErrorCode::NoSegment);
}

#[test]
fn counts_show_in_stat_and_metrics() {
    let mut config = tcp_config(100);
    config.metrics = Some("127.0.0.1:0".parse().unwrap());
    let running = Running::new(&config);
    let mut client = running.connect();
    client.hello();
    let segment = client.create("counted", 10, 0).unwrap();
    client.write(segment, 0, 1, 1).unwrap();
    client.read(segment, 0).unwrap().unwrap();
    client.create("too large", 1000, 0).unwrap_err();
    client
        .ask(&Request::Stat, |answer| {
            let Answer::Status(status) = answer else { panic!("{answer:?}") };
            assert_eq!(
                (status.pages_read, status.pages_written, status.pages_filled, status.errors),
                (1, 1, 1, 1)
            );
        })
        .unwrap();
    let metrics = || {
        let mut http = TcpStream::connect(running.metrics.unwrap()).unwrap();
        http.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        http.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        text
    };
    let all_timed = "rackmem_memory_server_request_seconds_bucket{le=\"+Inf\"} 6";
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut text = metrics();
    // A request's time is taken down after its answer has gone.
    while !text.contains(all_timed) && Instant::now() < deadline {
        text = metrics();
    }
    for line in [
        "rackmem_memory_server_pool_bytes 409600",
        "rackmem_memory_server_pool_reserved_bytes 40960",
        "rackmem_memory_server_pool_filled_bytes 4096",
        "rackmem_memory_server_segments 1",
        "rackmem_memory_server_connections 1",
        "rackmem_memory_server_pages_read_total 1",
        "rackmem_memory_server_errors_total{code=\"full\"} 1",
        all_timed,
        "# EOF",
    ] {
        assert!(text.lines().any(|other| other == line), "no '{line}' in {text}");
    }
}
