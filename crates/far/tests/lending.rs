//! Servers and segments that come while a far memory is in use, and go while nothing lies on them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::Duration;

use common::{Checked, Host, config};
use rackmem_far::{Credentials, FarError, FarMemory, GivenSegment, Lending, Segments};

const LEASE: Duration = Duration::from_secs(30);

fn made(host: &Host, pages: u64) -> (Segments, GivenSegment) {
    let segments = Segments::connect(host.address(), &Credentials::default()).unwrap();
    let owner = Segments::owner();
    let segment = segments.create("made for another", pages, owner, LEASE).unwrap();
    (segments, GivenSegment { server: host.address(), segment, owner, first: 0, pages })
}

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
    memory.lend(lending(&[&first, &second])).unwrap();
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

#[test]
fn what_is_in_use_does_not_go_and_what_is_not_does() {
    let (host, other) = (Host::tcp(1 << 14), Host::tcp(1 << 14));
    let ((_a, first), (segments, second)) = (made(&host, 1000), made(&other, 500));
    let memory = connected(lending(&[&first, &second]));
    assert_eq!(memory.grow().unwrap(), Some(0..1000));
    let refused = memory.lend(lending(&[&second])).err().unwrap();
    assert!(matches!(refused, FarError::InUse { segment, .. } if segment == first.segment), "{refused}");
    assert!(matches!(memory.lend(Lending::default()), Err(FarError::InUse { .. })));
    memory.lend(lending(&[&first])).unwrap();
    assert_eq!(memory.grow().unwrap(), None, "the second segment is not for us any more");
    segments.destroy(second.segment, second.owner).unwrap();
    // A segment that is not there is refused, and all stays as it was.
    let gone = memory.lend(lending(&[&first, &second])).err().unwrap();
    assert!(matches!(gone, FarError::NoSegment { .. }), "{gone}");
    let mut checked = Checked::new(memory.clone());
    let slots: Vec<u32> = (0..1000).collect();
    checked.round(&slots, &[]);
    checked.round(&[], &slots);
    assert_eq!((checked.reads_failed, checked.stores_failed), (0, 0));
    memory.destroy();
}

#[test]
fn a_server_that_lends_comes_and_what_lies_there_holds_it() {
    let (host, lender) = (Host::tcp(1 << 14), Host::tcp(1 << 14));
    let (_segments, given) = made(&host, 100);
    let memory = connected(lending(&[&given]));
    assert_eq!(memory.grow().unwrap(), Some(0..100));
    let both =
        Lending { servers: vec![lender.address()], given: vec![given.clone()], capacity_pages: Some(600) };
    memory.lend(both.clone()).unwrap();
    assert_eq!(memory.grow().unwrap(), Some(100..600), "up to the new capacity");
    let less = Lending { capacity_pages: Some(599), ..both.clone() };
    assert!(matches!(memory.lend(less), Err(FarError::InUse { .. })), "it has 600");
    let refused = memory.lend(lending(&[&given])).err().unwrap();
    assert!(refused.to_string().contains("is in use"), "{refused}");
    // A successor finds all of it.
    let mut config = config(vec![lender.address()]);
    config.given = vec![given];
    let second = FarMemory::resume(config, &memory.extents()).unwrap();
    assert_eq!(second.extents(), memory.extents());
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
