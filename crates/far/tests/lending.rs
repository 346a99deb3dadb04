//! Servers and segments that come while a far memory is in use, and go while nothing lies on them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::single_range_in_vec_init, reason = "a list of extents has one now and then")]

mod common;

use std::time::Duration;

use common::{Checked, Host, client, config, made};
use rackmem_far::{Credentials, FarError, FarMemory, GivenSegment, Lending, Segments};

fn lending(given: &[&GivenSegment]) -> Lending {
    let capacity = given.iter().map(|part| part.pages as u32).sum();
    let given = given.iter().map(|part| (*part).clone()).collect();
    Lending { given, capacity_pages: Some(capacity), ..Lending::default() }
}

fn connected(lending: Lending) -> FarMemory {
    let Lending { servers, given, capacity_pages } = lending;
    let mut config = config(servers);
    (config.given, config.capacity_pages) = (given, capacity_pages);
    FarMemory::connect(config).unwrap()
}

#[test]
fn a_segment_on_another_server_comes_while_pages_move() {
    let (host, other) = (Host::tcp(1 << 14), Host::tcp(1 << 14));
    let ((_a, first), (_b, second)) = (made(&host, 1000), made(&other, 500));
    let memory = connected(lending(&[&first]));
    assert_eq!(memory.grow().unwrap(), Some(0..1000));
    assert_eq!(memory.grow().unwrap(), None);
    let mut checked = Checked::new(memory.clone());
    let slots: Vec<u32> = (0..1000).collect();
    // What is under way when the server comes goes on.
    checked.begin(&slots, &[]);
    assert_eq!(memory.lend(lending(&[&first, &second])).unwrap(), []);
    checked.settle(&slots, &[]);
    assert_eq!(memory.grow().unwrap(), Some(1000..1500));
    let more: Vec<u32> = (900..1500).collect();
    checked.round(&more, &slots);
    checked.round(&[], &more);
    assert_eq!((checked.reads_failed, checked.stores_failed), (0, 0));
    let used: Vec<u64> = memory.servers().iter().map(|server| server.used_pages).collect();
    assert_eq!(used, [1000, 500]);
    // The same said again changes nothing: neither is a segment emptied nor used twice.
    memory.lend(lending(&[&first, &second])).unwrap();
    assert_eq!(memory.grow().unwrap(), None);
    checked.round(&[], &more);
    assert_eq!(checked.reads_failed, 0);
    memory.destroy();
}

/// What lies on a segment that is not named any more stays there, is moved by who put it there, and then the segment is let go of.
#[test]
fn a_segment_goes_when_what_lies_on_it_has_been_moved() {
    let (host, other) = (Host::tcp(1 << 14), Host::tcp(1 << 14));
    let ((from, first), (_b, second)) = (made(&host, 1000), made(&other, 1000));
    let memory = connected(lending(&[&first]));
    assert_eq!(memory.grow().unwrap(), Some(0..1000));
    let mut checked = Checked::new(memory.clone());
    let (old, new): (Vec<u32>, Vec<u32>) = ((0..1000).collect(), (1000..2000).collect());
    checked.round(&old, &[]);
    assert_eq!(memory.lend(lending(&[&second])).unwrap(), [0..1000]);
    assert_eq!(memory.lending(), lending(&[&second]));
    // Named again, it is as it was: it is not emptied.
    assert_eq!(memory.lend(lending(&[&first])).unwrap(), []);
    checked.round(&[], &old);
    let surplus = memory.lend(lending(&[&second])).unwrap();
    assert_eq!(memory.grow().unwrap(), Some(1000..2000));
    checked.round(&new, &old);
    // Pages that are on their way when it is shed arrive.
    checked.begin(&[], &old);
    std::thread::scope(|scope| {
        let shed = scope.spawn(|| memory.shed(&surplus));
        checked.settle(&[], &old);
        // The port says so itself.
        let until = std::time::Instant::now() + Duration::from_millis(200);
        while std::time::Instant::now() < until {
            checked.port.wait(Some(Duration::from_millis(10)), &mut |_| {});
        }
        assert!(shed.join().unwrap(), "the port has its answers");
    });
    assert_eq!((checked.pages_read, checked.reads_failed), (3000, 0));
    memory.give_back(&surplus);
    from.destroy(first.segment, first.owner).unwrap();
    // Its server has forgotten it; nothing that is asked of the other is harmed, and what is asked of it is refused here.
    checked.begin(&[], &old[..10]);
    checked.settle(&[], &old[..10]);
    assert_eq!(checked.reads_failed, 10);
    checked.round(&[], &new);
    assert_eq!((checked.reads_failed, checked.lost.len()), (10, 0));
    // The server that has nothing of ours is not ours to lose.
    let left: Vec<_> = memory.servers().into_iter().map(|server| server.address).collect();
    assert_eq!(left, [other.address()]);
    host.stop();
    checked.port.wait(Some(Duration::from_millis(50)), &mut |event| panic!("{event:?}"));
    checked.round(&[], &new[..10]);
    assert!(checked.lost.is_empty());
    // A successor knows the slots, and asks nothing of them.
    let records = memory.extents();
    assert_eq!(records.iter().map(|record| record.gone).collect::<Vec<_>>(), [true, false]);
    let config = client(vec![second]);
    let second = FarMemory::resume(config, &records).unwrap();
    assert_eq!((second.extents()[0].gone, &second.extents()[1]), (true, &records[1]));
    checked.port = second.port().unwrap();
    checked.round(&[], &new);
    assert_eq!(checked.reads_failed, 10);
    assert_eq!(second.grow().unwrap(), None);
}

/// Has everything that lies on `old` moved to what is lent from now on; gives where it lies then.
fn moved(memory: &FarMemory, checked: &mut Checked, old: &[u32], to: &Lending) -> Vec<u32> {
    let surplus = memory.lend(to.clone()).unwrap();
    assert_eq!(surplus.iter().cloned().flatten().collect::<Vec<_>>(), old, "all of it has to go");
    let mut new = Vec::new();
    while new.len() < old.len() {
        new.extend(memory.grow().unwrap().unwrap());
    }
    assert_eq!(new.len(), old.len());
    checked.round(&new, old);
    std::thread::scope(|scope| {
        let shed = scope.spawn(|| memory.shed(&surplus));
        while !shed.is_finished() {
            checked.port.wait(Some(Duration::from_millis(10)), &mut |_| {});
        }
        assert!(shed.join().unwrap());
    });
    memory.give_back(&surplus);
    new
}

/// A server that was left and is joined again is known twice; what lies on it now is not gone with what lay on it before.
#[test]
fn what_moves_to_and_fro_between_two_servers_is_never_lost() {
    let (host, other) = (Host::tcp(1 << 14), Host::tcp(1 << 14));
    let ((_a, first), (_b, second)) = (made(&host, 300), made(&other, 300));
    let on = |server| Lending { servers: vec![server], capacity_pages: Some(300), ..Lending::default() };
    let given = [lending(&[&first]), lending(&[&second])];
    let lent = [on(host.address()), on(other.address())];
    for [here, there] in [given, lent] {
        let memory = connected(here.clone());
        let mut slots: Vec<u32> = memory.grow().unwrap().unwrap().collect();
        let mut checked = Checked::new(memory.clone());
        checked.round(&slots, &[]);
        for to in [&there, &here, &there, &here, &there] {
            slots = moved(&memory, &mut checked, &slots, to);
            // The same said again, and growth that there is no room for, harm nothing.
            assert_eq!(memory.lend(to.clone()).unwrap(), []);
            assert_eq!(memory.grow().unwrap(), None);
            checked.round(&[], &slots);
            assert_eq!((checked.reads_failed, checked.stores_failed, checked.lost.len()), (0, 0, 0));
        }
        memory.destroy();
    }
}

/// A pager dies while it moves its pages; its successor is told what it was to have, and then what it had.
#[test]
fn a_successor_does_not_empty_what_its_predecessor_used() {
    let (host, other) = (Host::tcp(1 << 14), Host::tcp(1 << 14));
    let ((_a, first), (_b, second)) = (made(&host, 100), made(&other, 100));
    let memory = connected(lending(&[&first]));
    assert_eq!(memory.grow().unwrap(), Some(0..100));
    let mut checked = Checked::new(memory.clone());
    let slots: Vec<u32> = (0..100).collect();
    checked.round(&slots, &[]);
    let successor = FarMemory::resume(client(vec![second.clone()]), &memory.extents()).unwrap();
    assert_eq!(successor.lend(lending(&[&second])).unwrap(), [0..100]);
    assert_eq!(successor.lend(lending(&[&first])).unwrap(), []);
    checked.port = successor.port().unwrap();
    checked.round(&[], &slots);
    assert_eq!((checked.pages_read, checked.reads_failed), (100, 0));
}

#[test]
fn what_is_not_in_use_goes_at_once() {
    let (host, other) = (Host::tcp(1 << 14), Host::tcp(1 << 14));
    let ((_a, first), (segments, second)) = (made(&host, 1000), made(&other, 500));
    let memory = connected(lending(&[&first, &second]));
    assert_eq!(memory.grow().unwrap(), Some(0..1000));
    assert_eq!(memory.lend(lending(&[&first])).unwrap(), []);
    assert_eq!(memory.grow().unwrap(), None, "the second segment is not for us any more");
    segments.destroy(second.segment, second.owner).unwrap();
    // A segment that is not there is refused, and all stays as it was.
    let gone = memory.lend(lending(&[&first, &second])).err().unwrap();
    assert!(matches!(gone, FarError::NoSegment { .. }), "{gone}");
    assert!(matches!(memory.lend(Lending::default()), Err(FarError::NoServers)));
    let larger = GivenSegment { pages: 1001, ..first.clone() };
    assert!(
        matches!(memory.lend(lending(&[&larger])), Err(FarError::InUse { .. })),
        "it could not be emptied"
    );
    let mut checked = Checked::new(memory.clone());
    let slots: Vec<u32> = (0..1000).collect();
    checked.round(&slots, &[]);
    checked.round(&[], &slots);
    assert_eq!((checked.reads_failed, checked.stores_failed), (0, 0));
    memory.destroy();
}

#[test]
fn a_server_that_lends_comes_and_goes() {
    let (host, lender) = (Host::tcp(1 << 14), Host::tcp(1 << 14));
    let (_segments, given) = made(&host, 100);
    let memory = connected(lending(&[&given]));
    assert_eq!(memory.grow().unwrap(), Some(0..100));
    let servers = vec![lender.address()];
    let both = Lending { servers, given: vec![given.clone()], capacity_pages: Some(600) };
    memory.lend(both.clone()).unwrap();
    assert_eq!(memory.grow().unwrap(), Some(100..600), "up to the new capacity");
    let less = Lending { capacity_pages: Some(599), ..both.clone() };
    assert_eq!(memory.lend(less).unwrap(), [100..600], "it has 600");
    let surplus = memory.lend(lending(&[&given])).unwrap();
    assert_eq!(surplus, [100..600]);
    assert!(memory.shed(&surplus));
    memory.give_back(&surplus);
    let segments = Segments::connect(lender.address(), &Credentials::default()).unwrap();
    assert_eq!(segments.pool().unwrap().segments.len(), 0, "its own segment is freed");
    assert_eq!(memory.grow().unwrap(), None);
    memory.lend(both).unwrap();
    assert_eq!(memory.grow().unwrap(), Some(600..1100), "slots are not used twice");
}

#[test]
fn a_server_that_is_lost_holds_nothing() {
    let (host, other) = (Host::tcp(1 << 14), Host::tcp(1 << 14));
    let ((_a, first), (_b, second)) = (made(&host, 100), made(&other, 100));
    let memory = connected(lending(&[&first]));
    memory.grow().unwrap();
    let mut checked = Checked::new(memory.clone());
    checked.round(&[0, 1, 2], &[]);
    host.stop();
    let (slots, _) = checked.wait_lost();
    assert_eq!(slots, vec![0..100]);
    memory.lend(lending(&[&second])).unwrap();
    assert_eq!(memory.grow().unwrap(), Some(100..200));
    let fresh: Vec<u32> = (100..200).collect();
    checked.round(&fresh, &[]);
    checked.round(&[], &fresh);
    assert_eq!(checked.reads_failed, 0);
}
