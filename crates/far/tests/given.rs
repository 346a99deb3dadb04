//! Far memory in segments that somebody else made: used in pieces, emptied before and after, never destroyed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Checked, Host, client, config, made};
use rackmem_far::{FarConfig, FarError, FarMemory, GivenSegment};
use rackmem_types::ServerAddress;

/// Pages with content in the whole server.
fn filled(memory: &FarMemory) -> u64 {
    memory.servers().iter().map(|server| server.used_pages).sum()
}

#[test]
fn a_given_segment_is_used_to_its_end_and_survives() {
    let host = Host::tcp(1 << 14);
    let (segments, given) = made(&host, 2500);
    for round in 0..2 {
        // The second owner's versions begin at one again: what the first one left must not be in its way.
        let memory = FarMemory::connect(client(vec![given.clone()])).unwrap();
        let extents: Vec<_> = std::iter::from_fn(|| memory.grow().unwrap()).collect();
        assert_eq!(extents, [0..1024, 1024..2048, 2048..2500], "round {round}");
        let mut checked = Checked::new(memory);
        let slots: Vec<u32> = (0..2500).step_by(7).collect();
        checked.round(&slots, &[]);
        checked.round(&[], &slots);
        assert_eq!((checked.pages_read, checked.stores_failed), (slots.len(), 0));
        assert_eq!(filled(&checked.memory), slots.len() as u64);
        checked.memory.destroy();
        assert_eq!(segments.keep(given.segment, given.owner).unwrap(), 2500, "the maker still has it");
    }
    segments.destroy(given.segment, given.owner).unwrap();
    let error = FarMemory::connect(client(vec![given])).err().unwrap();
    assert!(matches!(error, FarError::NoSegment { .. }), "{error}");
}

#[test]
fn two_parts_of_a_segment_do_not_touch_each_other() {
    let host = Host::tcp(1 << 14);
    let (_segments, whole) = made(&host, 2000);
    let part = |first| GivenSegment { first, pages: 1000, ..whole.clone() };
    let both: Vec<_> = [0, 1000].map(|first| FarMemory::connect(client(vec![part(first)])).unwrap()).into();
    let mut both: Vec<_> = both
        .into_iter()
        .map(|memory| {
            assert_eq!(memory.grow().unwrap(), Some(0..1000));
            Checked::new(memory)
        })
        .collect();
    let slots: Vec<u32> = (0..1000).collect();
    for _ in 0..2 {
        // The second one is a version behind: what it finds of the first's would be told.
        both[0].round(&slots, &[]);
    }
    both[1].round(&slots, &[]);
    both[0].memory.destroy();
    both[1].round(&[], &slots);
    assert_eq!((both[1].pages_read, both[1].reads_failed), (1000, 0));
}

#[test]
fn growth_goes_on_with_the_servers_that_lend() {
    let (host, lender) = (Host::tcp(1 << 14), Host::tcp(1 << 14));
    let (_segments, given) = made(&host, 100);
    let memory =
        FarMemory::connect(FarConfig { given: vec![given], ..config(vec![lender.address()]) }).unwrap();
    assert_eq!(memory.grow().unwrap(), Some(0..100));
    assert_eq!(memory.grow().unwrap(), Some(100..1124));
    let reserved = |address: ServerAddress| {
        let servers = memory.servers();
        servers.iter().find(|server| server.address == address).unwrap().reserved_pages
    };
    assert_eq!((reserved(host.address()), reserved(lender.address())), (100, 1024));
}

#[test]
fn a_successor_goes_on_in_the_same_segment() {
    let host = Host::tcp(1 << 14);
    let (_segments, given) = made(&host, 2000);
    let first = FarMemory::connect(client(vec![given.clone()])).unwrap();
    assert_eq!(first.grow().unwrap(), Some(0..1024));
    let mut checked = Checked::new(first.clone());
    let slots: Vec<u32> = (0..1024).collect();
    checked.round(&slots, &[]);
    let second = FarMemory::resume(client(vec![given]), &first.extents()).unwrap();
    assert_eq!(second.extents(), first.extents());
    checked.port = second.port().unwrap();
    checked.round(&[], &slots);
    assert_eq!((checked.pages_read, checked.reads_failed), (1024, 0));
    assert_eq!(second.grow().unwrap(), Some(1024..2000), "the rest of the segment, and no more");
    assert_eq!(second.grow().unwrap(), None);
}

#[test]
fn what_cannot_be_used_is_refused_at_once() {
    let host = Host::tcp(1 << 14);
    let (_segments, given) = made(&host, 100);
    let refusal = |given| FarMemory::connect(client(vec![given])).err().unwrap().to_string();
    let larger = refusal(GivenSegment { first: 50, pages: 51, ..given.clone() });
    assert!(larger.contains("ends at page 100"), "{larger}");
    let stranger = refusal(GivenSegment { owner: [7; 16], ..given.clone() });
    assert!(stranger.contains("belongs to somebody else"), "{stranger}");
}
