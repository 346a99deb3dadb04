//! The promise under faults: a read gives the version stored last, or an error; never zeros, never old data.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(clippy::single_range_in_vec_init, reason = "lists of lost ranges have one element here")]

mod common;

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use common::proxy::{Faults, Late, Proxy};
use common::{Checked, Host, Random, certificates, config, page};
use rackmem_far::{Event, FarConfig, FarMemory, PageError, ReadRequest, ServerState};
use rackmem_types::Slot;

const POOL_PAGES: u64 = 4096;
const ROUNDS: usize = 150;

/// Random rounds through a proxy with these faults; gives what was checked, and how many faults there were.
fn under(seed: u64, set: impl FnOnce(&Faults)) -> (Checked, u32) {
    let host = Host::tcp(POOL_PAGES);
    let proxy = Proxy::start(&host.address(), seed);
    rounds(seed, &proxy, config(vec![proxy.address()]), set)
}

/// As [`under`], with TLS between client and server.
fn under_tls(seed: u64, set: impl FnOnce(&Faults)) -> (Checked, u32) {
    let directory = tempfile::tempdir().unwrap();
    let files = certificates(directory.path(), "one");
    let host = Host::tls(POOL_PAGES, &files);
    let proxy = Proxy::start_tls(&host.address(), seed);
    let mut client = config(vec![proxy.address()]);
    client.credentials.tls = Some(files);
    rounds(seed, &proxy, client, set)
}

fn rounds(seed: u64, proxy: &Proxy, client: FarConfig, set: impl FnOnce(&Faults)) -> (Checked, u32) {
    let memory = FarMemory::connect(client).unwrap();
    let slots = memory.grow().unwrap().unwrap();
    let mut checked = Checked::new(memory);
    let mut random = Random(seed);
    checked.round(&slots.clone().collect::<Vec<_>>(), &[]);
    set(&proxy.faults);
    for _ in 0..ROUNDS {
        let len = 1 + random.below(60) as u32;
        let start = slots.start + random.below(u64::from(slots.end - len)) as u32;
        let share = random.below(4) as u32;
        let (stores, reads): (Vec<u32>, Vec<u32>) = (start..start + len).partition(|slot| slot % 4 < share);
        checked.round(&stores, &reads);
    }
    let struck = proxy.faults.struck.load(Ordering::SeqCst);
    for fault in [&proxy.faults.cut, &proxy.faults.corrupt, &proxy.faults.delay, &proxy.faults.reorder] {
        fault.store(0, Ordering::SeqCst);
    }
    // Everything is there in the end.
    let failed = checked.reads_failed;
    checked.round(&[], &slots.collect::<Vec<_>>());
    assert_eq!(checked.reads_failed, failed, "seed {seed}");
    assert!(struck > 0, "seed {seed} had no fault");
    assert_eq!(checked.memory.servers()[0].state, ServerState::Up, "seed {seed}");
    (checked, struck)
}

#[test]
fn cuts_lose_nothing() {
    let (checked, _) = under(11, |faults| faults.cut.store(60, Ordering::SeqCst));
    assert_eq!((checked.reads_failed, checked.stores_failed), (0, 0));
}

#[test]
fn delays_and_reordered_answers_lose_nothing() {
    let (checked, _) = under(12, |faults| {
        faults.delay.store(100, Ordering::SeqCst);
        faults.reorder.store(300, Ordering::SeqCst);
    });
    assert_eq!((checked.reads_failed, checked.stores_failed), (0, 0));
}

#[test]
fn damaged_frames_are_never_believed() {
    let (checked, struck) = under(13, |faults| faults.corrupt.store(100, Ordering::SeqCst));
    // A page fails only if it was damaged twice in a row.
    assert!(checked.reads_failed + checked.stores_failed <= struck as usize, "{struck} faults");
}

#[test]
fn cuts_of_tls_lose_nothing() {
    let (checked, _) = under_tls(15, |faults| faults.cut.store(20, Ordering::SeqCst));
    assert_eq!((checked.reads_failed, checked.stores_failed), (0, 0));
}

/// Whatever is damaged under TLS ends the connection, so it is a cut as well; a damaged handshake may also hang for ever.
#[test]
fn cut_damaged_and_delayed_tls_loses_nothing() {
    let (checked, _) = under_tls(16, |faults| {
        faults.cut.store(20, Ordering::SeqCst);
        faults.corrupt.store(15, Ordering::SeqCst);
        faults.delay.store(20, Ordering::SeqCst);
    });
    assert_eq!((checked.reads_failed, checked.stores_failed), (0, 0));
}

#[test]
fn a_discard_from_before_a_cut_spares_what_was_stored_after_it() {
    // Without a fence the page is gone: so this is a test.
    for (up_to, is_spared) in [(1, true), (u64::MAX, false)] {
        let host = Host::tcp(POOL_PAGES);
        let proxy = Proxy::start(&host.address(), 1);
        let mut checked = Checked::new(FarMemory::connect(config(vec![proxy.address()])).unwrap());
        let slot = checked.memory.grow().unwrap().unwrap().start;
        checked.round(&[slot], &[]);
        proxy.hold_next();
        checked.port.discard(&[Slot(slot)], up_to);
        proxy.wait_late(Late::Held);
        // The slot gets version 2 on the next connection.
        checked.round(&[slot], &[]);
        proxy.release_late();
        proxy.wait_late(Late::Handled);
        checked.port.read(&[ReadRequest { tag: slot, slot: Slot(slot) }]);
        let mut found = None;
        while checked.port.in_flight() > 0 {
            checked.port.wait(Some(Duration::from_secs(1)), &mut |event| {
                found = Some(match event {
                    Event::Page { version, data, .. } => {
                        assert!(*data == page(Slot(slot), 2));
                        Ok(version)
                    }
                    Event::ReadFailed { error, .. } => Err(error),
                    other => panic!("{other:?}"),
                });
            });
        }
        assert_eq!(found, Some(if is_spared { Ok(2) } else { Err(PageError::Missing) }));
    }
}

#[test]
fn all_at_once() {
    under(14, |faults| {
        faults.cut.store(20, Ordering::SeqCst);
        faults.corrupt.store(30, Ordering::SeqCst);
        faults.delay.store(50, Ordering::SeqCst);
        faults.reorder.store(100, Ordering::SeqCst);
    });
}

#[test]
fn a_short_stall_only_takes_its_time() {
    let host = Host::tcp(POOL_PAGES);
    let proxy = Proxy::start(&host.address(), 1);
    let mut checked = Checked::new(FarMemory::connect(config(vec![proxy.address()])).unwrap());
    let slots: Vec<u32> = checked.memory.grow().unwrap().unwrap().collect();
    checked.round(&slots, &[]);
    proxy.faults.stalled.store(true, Ordering::SeqCst);
    let (stores, reads) = slots.split_at(100);
    checked.begin(stores, reads);
    thread::sleep(Duration::from_millis(200));
    proxy.faults.stalled.store(false, Ordering::SeqCst);
    checked.settle(stores, reads);
    assert_eq!((checked.reads_failed, checked.stores_failed), (0, 0));
}

#[test]
fn an_endless_stall_ends_in_the_loss_of_the_server() {
    let host = Host::tcp(POOL_PAGES);
    let proxy = Proxy::start(&host.address(), 1);
    let mut checked = Checked::new(FarMemory::connect(config(vec![proxy.address()])).unwrap());
    let slots: Vec<u32> = checked.memory.grow().unwrap().unwrap().collect();
    checked.round(&slots, &[]);
    proxy.faults.stalled.store(true, Ordering::SeqCst);
    let begin = Instant::now();
    checked.round(&slots[..10], &slots[10..300]);
    assert_eq!((checked.reads_failed, checked.stores_failed), (290, 10));
    assert!(begin.elapsed() < Duration::from_secs(4), "bounded: {:?}", begin.elapsed());
    let (ranges, reason) = checked.wait_lost();
    assert_eq!((ranges, checked.memory.lost()), (vec![0..1024], vec![0..1024]));
    assert!(!reason.is_empty());
    // What comes later fails at once.
    checked.round(&[], &slots[..5]);
    assert_eq!(checked.reads_failed, 295);
}

#[test]
fn a_restarted_server_is_a_lost_one_for_every_port() {
    let (first, second) = (Host::tcp(POOL_PAGES), Host::tcp(POOL_PAGES));
    let proxy = Proxy::start(&first.address(), 1);
    let memory = FarMemory::connect(config(vec![proxy.address()])).unwrap();
    let slots: Vec<u32> = memory.grow().unwrap().unwrap().collect();
    let (mut one, mut other) = (Checked::new(memory.clone()), Checked::new(memory.clone()));
    one.round(&slots, &[]);
    proxy.retarget(&second.address());
    first.stop();
    proxy.cut_all();
    one.round(&[], &slots[..20]);
    assert_eq!((one.reads_failed, one.pages_read), (20, 0));
    for checked in [&mut one, &mut other] {
        let (ranges, reason) = checked.wait_lost();
        assert_eq!(ranges, [0..1024]);
        assert!(reason.contains("restarted"), "{reason}");
    }
    assert!(matches!(memory.servers()[0].state, ServerState::Lost(_)));
    assert_eq!(memory.grow().unwrap(), None);
}

#[test]
fn a_server_that_is_away_for_a_moment_is_not_lost() {
    let host = Host::tcp(POOL_PAGES);
    let proxy = Proxy::start(&host.address(), 1);
    let mut checked = Checked::new(FarMemory::connect(config(vec![proxy.address()])).unwrap());
    let slots: Vec<u32> = checked.memory.grow().unwrap().unwrap().collect();
    checked.round(&slots, &[]);
    proxy.faults.closed.store(true, Ordering::SeqCst);
    proxy.cut_all();
    checked.begin(&slots[..300], &slots[300..]);
    let until = Instant::now() + Duration::from_millis(200);
    while Instant::now() < until {
        checked.port.wait(Some(Duration::from_millis(20)), &mut |event| panic!("{event:?}"));
    }
    assert!(matches!(checked.memory.servers()[0].state, ServerState::Reconnecting(_)));
    proxy.faults.closed.store(false, Ordering::SeqCst);
    checked.settle(&slots[..300], &slots[300..]);
    assert_eq!((checked.reads_failed, checked.stores_failed), (0, 0));
}

#[test]
fn a_dead_server_is_lost_over_shared_memory_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let host = Host::unix(POOL_PAGES, &path);
    let address = rackmem_types::ServerAddress::Shm(path);
    let mut checked = Checked::new(FarMemory::connect(config(vec![address])).unwrap());
    let slots: Vec<u32> = checked.memory.grow().unwrap().unwrap().collect();
    checked.round(&slots, &[]);
    host.stop();
    assert_eq!(checked.wait_lost().0, [0..1024]);
    checked.round(&[], &slots[..5]);
    assert_eq!((checked.reads_failed, checked.pages_read), (5, 0));
}
