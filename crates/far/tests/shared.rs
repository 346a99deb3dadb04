//! Memory that several clients share: what one writes the others read, whatever the network does meanwhile; and never zeros or old
//! content where something was.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use common::proxy::Proxy;
use common::{Host, made};
use rackmem_far::{Credentials, FarError, GivenSegment, SharedMemory};
use rackmem_types::PAGE_SIZE;

fn open(parts: &[GivenSegment]) -> SharedMemory {
    SharedMemory::open(parts, &Credentials::default()).unwrap()
}

fn read(memory: &mut SharedMemory, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    let got = memory.read_at(offset, &mut bytes).unwrap();
    bytes.truncate(got);
    bytes
}

#[test]
fn what_one_writes_the_others_read() {
    let (first, second) = (Host::tcp(1 << 12), Host::tcp(1 << 12));
    let ((_one, a), (_two, b)) = (made(&first, 300), made(&second, 20));
    // The second half of one segment, and another on another server.
    let parts = [GivenSegment { first: 150, pages: 150, ..a.clone() }, b];
    let (mut here, mut there) = (open(&parts), open(&parts));
    let size = 170 * PAGE_SIZE as u64;
    assert_eq!((here.size(), there.size()), (size, size));
    assert_eq!(read(&mut there, 0, 10_000), vec![0; 10_000], "nothing was written yet");

    // Across pages, and across both servers.
    for (offset, len) in [(0, 1), (4095, 2), (1234, 300_000), (149 * 4096 + 5, 2 * PAGE_SIZE)] {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + offset as usize) as u8 | 1).collect();
        assert_eq!(here.write_at(offset, &bytes).unwrap(), len);
        assert!(read(&mut there, offset, len) == bytes, "{len} bytes at {offset}");
        let before = offset.saturating_sub(1);
        assert_eq!(read(&mut here, before, 1), read(&mut there, before, 1));
    }
    // It ends where it ends.
    assert_eq!(here.write_at(size - 3, &[7; 10]).unwrap(), 3);
    assert_eq!(read(&mut there, size - 3, 10), [7; 3]);
    assert_eq!((read(&mut there, size, 10).len(), here.write_at(size + 5, &[1]).unwrap()), (0, 0));
    // The first half of the segment is somebody else's.
    let mut whole = open(&[GivenSegment { first: 0, pages: 150, ..a }]);
    assert_eq!(read(&mut whole, 0, 150 * PAGE_SIZE), vec![0; 150 * PAGE_SIZE]);
}

#[test]
fn no_write_is_undone_by_one_beside_it() {
    let host = Host::tcp(1 << 10);
    let (_segments, given) = made(&host, 8);
    const WRITERS: u64 = 4;
    const WRITES: u64 = 200;
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let parts = [given.clone()];
            scope.spawn(move || {
                let mut memory = open(&parts);
                // All in one page, and each across the border of two more.
                for count in 1..=WRITES {
                    for place in [8 * writer, 4096 * 3 - 16 + 8 * writer] {
                        memory.write_at(place, &count.to_le_bytes()).unwrap();
                        assert_eq!(read(&mut memory, place, 8), count.to_le_bytes(), "writer {writer}");
                    }
                }
            });
        }
    });
    let mut memory = open(&[given]);
    for writer in 0..WRITERS {
        for place in [8 * writer, 4096 * 3 - 16 + 8 * writer] {
            assert_eq!(read(&mut memory, place, 8), WRITES.to_le_bytes(), "writer {writer}");
        }
    }
}

#[test]
fn through_a_bad_network_nothing_is_lost() {
    let host = Host::tcp(1 << 12);
    let (_segments, given) = made(&host, 64);
    let proxy = Proxy::start(&host.address(), 11);
    let far = GivenSegment { server: proxy.address(), ..given.clone() };
    let (mut writer, mut reader) = (open(&[far]), open(&[given]));
    proxy.faults.cut.store(20, Relaxed);
    proxy.faults.corrupt.store(20, Relaxed);
    proxy.faults.delay.store(50, Relaxed);
    for round in 0..300_u64 {
        let offset = round * 977 % (60 * 4096);
        let bytes: Vec<u8> = (0..9000).map(|i| (i ^ round) as u8 | 1).collect();
        // Nobody else writes, so it is never open whether a write took place.
        assert_eq!(writer.write_at(offset, &bytes).unwrap(), bytes.len());
        assert!(read(&mut reader, offset, bytes.len()) == bytes, "round {round}");
        assert!(read(&mut writer, offset, bytes.len()) == bytes, "round {round}");
    }
    assert!(proxy.faults.struck.load(Relaxed) > 20, "the network was not bad");
}

#[test]
fn what_is_gone_is_an_error_and_never_zeros() {
    let host = Host::tcp(1 << 10);
    let (segments, given) = made(&host, 8);
    let stranger = GivenSegment { owner: [9; 16], ..given.clone() };
    let refused = SharedMemory::open(&[stranger], &Credentials::default()).err().unwrap();
    assert!(matches!(refused, FarError::NotOwner { .. }), "{refused}");
    let long = GivenSegment { pages: 9, ..given.clone() };
    let refused = SharedMemory::open(&[long], &Credentials::default()).err().unwrap();
    assert!(matches!(refused, FarError::SegmentTooSmall { .. }), "{refused}");

    let mut memory = open(std::slice::from_ref(&given));
    memory.write_at(0, b"content").unwrap();
    segments.destroy(given.segment, given.owner).unwrap();
    for _ in 0..2 {
        let gone = memory.read_at(0, &mut [0; 7]).unwrap_err();
        assert!(matches!(gone, FarError::NoSegment { .. }), "{gone}");
        let gone = memory.write_at(0, b"more").unwrap_err();
        assert!(matches!(gone, FarError::NoSegment { .. }), "{gone}");
    }
    // Another life of a server, in which the segment's number may be another one's.
    let proxy = Proxy::start(&host.address(), 1);
    let (_segments, given) = made(&host, 8);
    let mut memory = open(&[GivenSegment { server: proxy.address(), ..given.clone() }]);
    memory.write_at(0, b"content").unwrap();
    host.stop();
    let next = Host::tcp(1 << 10);
    let (_segments, _other) = made(&next, 8);
    proxy.retarget(&next.address());
    let gone = memory.read_at(0, &mut [0; 7]).unwrap_err();
    assert!(matches!(gone, FarError::NoSegment { .. }), "{gone}");
}
