//! The whole way to a real memory server and back, over every transport.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use std::time::Duration;

use common::{Checked, Host, Random, any_port, certificates, config, page};
use rackmem_far::{Event, FarMemory, PageError, ReadRequest, ServerState, WriteRequest};
use rackmem_memory_server::ServerConfig;
use rackmem_types::{Bytes, PageHash, ServerAddress, Slot};

const POOL_PAGES: u64 = 8192;

/// Stores, overwrites, reads in batches of many sizes, discards.
fn exercise(memory: &FarMemory) {
    let slots = memory.grow().unwrap().unwrap();
    let mut checked = Checked::new(memory.clone());
    let mut random = Random(7);
    let all: Vec<u32> = slots.clone().collect();
    checked.round(&all, &[]);
    for size in [1, 1, 2, 17, 256, 257, 700] {
        let start = random.below(u64::from(slots.end - slots.start - size)) as u32 + slots.start;
        let (stores, reads): (Vec<u32>, Vec<u32>) = (start..start + size).partition(|slot| slot % 3 == 0);
        checked.round(&stores, &reads);
    }
    checked.round(&[], &all);
    let Checked { reads_failed, stores_failed, .. } = checked;
    assert_eq!((reads_failed, stores_failed), (0, 0));
    assert_eq!(memory.servers()[0].used_pages, u64::from(slots.end - slots.start));

    let dropped = [Slot(slots.start), Slot(slots.start + 1), Slot(slots.start + 9)];
    checked.round(&[slots.start + 1], &[]);
    // What has been stored again since is newer than this discard, and stays.
    checked.port.discard(&dropped, 1);
    checked.round(&[], &[slots.start + 1]);
    assert_eq!(checked.reads_failed, 0);
    checked.port.discard(&dropped, u64::MAX);

    let port = &mut checked.port;
    let mut events = Vec::new();
    port.read(&[
        ReadRequest { tag: 5, slot: Slot(slots.start + 1) },
        ReadRequest { tag: 6, slot: Slot(slots.end) },
    ]);
    let data = page(Slot(3), 1);
    let checksum = PageHash::of(&data).checksum();
    // The slot has been stored twice or thrice, so version 1 with another content is stale.
    let slot = Slot(slots.start + 3);
    port.write(&[WriteRequest { tag: 7, slot, version: 1, checksum: checksum ^ 1, data: &data }]);
    while port.in_flight() > 0 {
        port.wait(Some(Duration::from_secs(1)), &mut |event| match event {
            Event::ReadFailed { tag, error, .. } | Event::StoreFailed { tag, error, .. } => {
                events.push((tag, error))
            }
            other => panic!("{other:?}"),
        });
    }
    events.sort_by_key(|(tag, _)| *tag);
    assert_eq!(events[..2], [(5, PageError::Missing), (6, PageError::Refused)]);
    assert!(matches!(events[2], (7, PageError::Stale | PageError::Corrupt)), "{events:?}");
    assert_eq!(memory.servers()[0].used_pages, u64::from(slots.end - slots.start) - 3);
    assert_eq!(memory.servers()[0].state, ServerState::Up);
    drop(checked);
    memory.destroy();
}

#[test]
fn tcp() {
    let host = Host::tcp(POOL_PAGES);
    exercise(&FarMemory::connect(config(vec![host.address()])).unwrap());
}

#[test]
fn unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::unix(POOL_PAGES, &directory.path().join("socket"));
    exercise(&FarMemory::connect(config(vec![host.address()])).unwrap());
}

#[test]
fn shared_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let _host = Host::unix(POOL_PAGES, &path);
    exercise(&FarMemory::connect(config(vec![ServerAddress::Shm(path)])).unwrap());
}

#[test]
fn tls_with_token() {
    let directory = tempfile::tempdir().unwrap();
    let files = certificates(directory.path(), "one");
    let mut server = ServerConfig::new(Bytes::from_pages(POOL_PAGES), vec![any_port()]);
    let (cert, key, ca) = (files.cert.clone(), files.key.clone(), files.ca.clone());
    server.tls = Some(rackmem_memory_server::TlsFiles { cert, key, ca });
    server.token = Some(b"a token of some length".to_vec());
    let host = Host::start(&server);
    let mut client = config(vec![host.address()]);
    client.credentials.tls = Some(files);
    client.credentials.token = server.token.clone();
    exercise(&FarMemory::connect(client).unwrap());
}

#[test]
fn several_servers_share_the_pages_until_they_are_full() {
    let hosts = [Host::tcp(2048), Host::tcp(1500)];
    let memory = FarMemory::connect(config(hosts.iter().map(Host::address).collect())).unwrap();
    let mut slots = Vec::new();
    while let Some(more) = memory.grow().unwrap() {
        slots.extend(more);
    }
    // 1024 from each in turn, and what is left of the smaller one in the end.
    assert_eq!(slots, (0..3548).collect::<Vec<u32>>());
    let reserved: Vec<u64> = memory.servers().iter().map(|server| server.reserved_pages).collect();
    assert_eq!(reserved, [2048, 1500]);
    let mut checked = Checked::new(memory);
    checked.round(&slots, &[]);
    checked.round(&[], &slots);
    assert_eq!((checked.reads_failed, checked.pages_read), (0, slots.len()));
}

#[test]
fn capacity_ends_the_growth() {
    let host = Host::tcp(POOL_PAGES);
    let mut client = config(vec![host.address()]);
    client.capacity_pages = Some(1500);
    let memory = FarMemory::connect(client).unwrap();
    assert_eq!(memory.grow().unwrap(), Some(0..1024));
    assert_eq!(memory.grow().unwrap(), Some(1024..1500));
    assert_eq!(memory.grow().unwrap(), None);
}
