//! A client on the same machine maps a segment and reads and writes pages itself.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Running, unix_client, unix_config};
use rackmem_memory_server::ServerConfig;
use rackmem_types::{PAGE_SIZE, PageHash};
use rackmem_uapi::shared::SharedMemory;
use rackmem_wire::{Answer, Mapped, Request, StoreStatus};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Takes a MAPPED frame and the descriptor that comes with it.
fn receive_mapped(socket: &std::os::unix::net::UnixStream) -> (Mapped, OwnedFd) {
    let mut bytes = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [std::io::IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match Answer::parse(&bytes[..received.bytes]).unwrap() {
        Some((_, Answer::Mapped(layout), _)) => (layout, descriptor.expect("a descriptor")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_mapped_segment_is_the_same_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.sock");
    let _running = Running::new(&unix_config(100, &path));
    let mut client = unix_client(&path);
    client.hello();
    let segment = client.create("mapped", 10, 0).unwrap();
    client.write(segment, 3, 4, 33).unwrap();
    client.send(&Request::SegmentMap { segment });
    let (layout, descriptor) = receive_mapped(&client.stream);
    let memory = SharedMemory::map(descriptor, layout.len as usize).unwrap();
    let meta = |page: usize| layout.meta_offset as usize + page * 16;
    let mut data = [0; PAGE_SIZE];
    memory.read(layout.data_offset as usize + 3 * PAGE_SIZE, &mut data);
    assert_eq!(data, [33; PAGE_SIZE]);
    assert_eq!(u64::from_le(memory.word(meta(3)).load(Ordering::Acquire)), 4);
    assert_eq!(
        u64::from_le(memory.word(meta(3) + 8).load(Ordering::Relaxed)),
        PageHash::of(&data).checksum()
    );

    let data = [88; PAGE_SIZE];
    memory.write(layout.data_offset as usize + 8 * PAGE_SIZE, &data);
    memory.word(meta(8) + 8).store(PageHash::of(&data).checksum().to_le(), Ordering::Relaxed);
    memory.word(meta(8)).store(7u64.to_le(), Ordering::Release);
    assert_eq!(client.read(segment, 8), Ok(Ok(88)));
    assert_eq!(client.write(segment, 8, 6, 1), Ok(StoreStatus::Stale), "the client's own version counts");
}

#[test]
fn the_regions_file_describes_the_memory() {
    let directory = tempfile::tempdir().unwrap();
    let (path, regions) = (directory.path().join("server.sock"), directory.path().join("regions.json"));
    let running = Running::new(&ServerConfig { regions: Some(regions.clone()), ..unix_config(100, &path) });
    let read =
        || serde_json::from_str::<serde_json::Value>(&std::fs::read_to_string(&regions).unwrap()).unwrap();
    assert_eq!(read()["regions"], serde_json::json!([]));
    let mut client = unix_client(&path);
    client.hello();
    let segment = client.create("described", 10, 0).unwrap();
    client.write(segment, 2, 1, 22).unwrap();
    let begin = Instant::now();
    let region = loop {
        if let Some(region) = read()["regions"].get(0) {
            break region.clone();
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "the region is never written");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!((&region["name"], &region["pages"]), (&"described".into(), &10.into()));
    let file = File::options().read(true).write(true).open(region["path"].as_str().unwrap()).unwrap();
    let memory = SharedMemory::map(file.into(), region["size"].as_u64().unwrap() as usize).unwrap();
    let mut data = [0; PAGE_SIZE];
    memory.read(region["data_offset"].as_u64().unwrap() as usize + 2 * PAGE_SIZE, &mut data);
    assert_eq!(data, [22; PAGE_SIZE]);
    assert_eq!(memory.word(region["meta_offset"].as_u64().unwrap() as usize + 32).load(Ordering::Relaxed), 1);
    running.stop();
    assert!(!regions.exists(), "the file goes with the server");
}
