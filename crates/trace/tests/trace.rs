//! Traces survive a round trip, and nothing that is read can do harm.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::io::Cursor;

use proptest::prelude::*;
use rackmem_trace::{
    Event, EvictionKind, FaultKind, Header, PAGE_MAX, Reader, Record, Run, TraceError, Writer,
};

fn header() -> Header {
    Header { page_size: 4096, started_us: 1_700_000_000_000_000, command: "redis-server --port 6400".into() }
}

fn started(process: u32, parent: Option<u32>) -> Record {
    Record { at_us: 0, process, event: Event::ProcessStarted { pid: 100 + process, parent } }
}

fn write(records: &[Record]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    records.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<Record>, TraceError> {
    Reader::new(Cursor::new(bytes))?.collect()
}

/// Asserts that the trace is refused with a message that contains `expect`.
#[track_caller]
fn check(bytes: &[u8], expect: &str) {
    let message = read(bytes).unwrap_err().to_string();
    assert!(message.contains(expect), "'{message}' does not say '{expect}'");
}

fn event() -> impl Strategy<Value = Event> {
    let page = prop_oneof![0u64..1000, 0x7f_ffff_0000u64..0x7f_ffff_0100, 0..=PAGE_MAX];
    let run = (page.clone(), prop_oneof![Just(1u64), 1u64..600, any::<u64>()])
        .prop_map(|(first, pages)| Run { first, pages: pages.clamp(1, PAGE_MAX + 1 - first) });
    let fault =
        prop::sample::select(vec![FaultKind::Far, FaultKind::Zero, FaultKind::Standby, FaultKind::Minor]);
    let eviction =
        prop::sample::select(vec![EvictionKind::Sent, EvictionKind::Unchanged, EvictionKind::Zero]);
    prop_oneof![
        (prop_oneof![0u32..4, any::<u32>()], page, any::<bool>(), fault)
            .prop_map(|(thread, page, write, kind)| Event::Fault { thread, page, write, kind }),
        (run.clone(), eviction).prop_map(|(run, kind)| Event::Evicted { run, kind }),
        run.clone().prop_map(|run| Event::Prefetched { run }),
        run.prop_map(|run| Event::Discarded { run }),
        Just(Event::ProcessEnded),
    ]
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let step = prop_oneof![0u64..100, 0u64..1 << 40];
    prop::collection::vec((step, 0u32..3, event()), 0..300).prop_map(|steps| {
        let mut at_us = 0;
        let mut records = vec![started(0, None), started(1, Some(0)), started(2, Some(1))];
        records.extend(steps.into_iter().map(|(step, process, event)| {
            at_us += step;
            Record { at_us, process, event }
        }));
        records
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_survive_a_round_trip(records in records()) {
        prop_assert_eq!(read(&write(&records)).unwrap(), records);
    }

    #[test]
    fn a_cut_trace_keeps_all_whole_records(records in records(), cut in 0.0f64..1.0) {
        let bytes = write(&records);
        let start = write(&[]).len();
        let cut = start + ((bytes.len() - start) as f64 * cut) as usize;
        let mut reader = Reader::new(&bytes[..cut]).unwrap();
        let whole: Vec<_> = reader.by_ref().map_while(Result::ok).collect();
        prop_assert_eq!(&whole[..], &records[..whole.len()]);
        prop_assert!(reader.next().is_none());
        prop_assert!(write(&whole).len() <= cut && (whole.len() == records.len() || write(&records[..=whole.len()]).len() > cut));
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(noise in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..400, with_header: bool) {
        let mut bytes = if with_header { write(&[started(0, None)]) } else { Vec::new() };
        bytes.extend_from_slice(&noise);
        let _ = read(&bytes);
        let mut bent = write(&[started(0, None), started(1, Some(0))]);
        let at = at % bent.len();
        bent[at] ^= noise.first().copied().unwrap_or(1);
        let _ = read(&bent);
    }

    #[test]
    fn what_is_read_can_be_written_again(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = write(&[started(0, None)]);
        bytes.extend_from_slice(&noise);
        let whole: Vec<_> = Reader::new(&bytes[..]).unwrap().map_while(Result::ok).collect();
        prop_assert_eq!(read(&write(&whole)).unwrap(), whole);
    }
}

#[test]
fn a_fault_near_the_last_takes_four_bytes() {
    let fault = |at_us, page| Record {
        at_us,
        process: 0,
        event: Event::Fault { thread: 0, page, write: false, kind: FaultKind::Far },
    };
    let few = write(&[started(0, None), fault(20, 1 << 30)]);
    let more = write(&[started(0, None), fault(20, 1 << 30), fault(45, (1 << 30) + 900)]);
    assert_eq!(more.len() - few.len(), 4);
}

#[test]
fn the_example_of_the_documentation_is_right() {
    let records = [
        Record { at_us: 0, process: 0, event: Event::ProcessStarted { pid: 4242, parent: None } },
        Record {
            at_us: 150,
            process: 0,
            event: Event::Fault { thread: 1, page: 0x10000, write: true, kind: FaultKind::Zero },
        },
        Record {
            at_us: 153,
            process: 0,
            event: Event::Evicted { run: Run { first: 0xfff0, pages: 8 }, kind: EvictionKind::Sent },
        },
    ];
    let header = Header { page_size: 4096, started_us: 1_700_000_000_000_000, command: "sort".into() };
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    records.iter().for_each(|record| writer.write(record).unwrap());
    let bytes = writer.finish().unwrap();
    let text: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let documentation = include_str!("../../../docs/trace-format.md");
    for line in text.chunks(16).map(|line| line.join(" ")) {
        assert!(documentation.contains(&line), "docs/trace-format.md does not show '{line}'");
    }
    assert_eq!(Reader::new(&bytes[..]).unwrap().header(), &header);
}

#[test]
fn damage_is_named() {
    let good = write(&[started(0, None)]);
    let with = |tail: &[u8]| [&good[..], tail].concat();
    let patched = |at: usize, bytes: &[u8]| {
        let mut patched = good.clone();
        patched[at..at + bytes.len()].copy_from_slice(bytes);
        patched
    };
    check(b"", "no rackmem trace");
    check(b"\x7fELF and more bytes than a header has", "no rackmem trace");
    check(&patched(8, &[9, 0]), "format version 9");
    check(&patched(10, &[0xff, 0xff]), "longer than 4096 bytes");
    check(&patched(12, &[0, 0, 0, 0]), "page size");
    check(&patched(24, &[0xff]), "not UTF-8");
    check(&good[..30], "ends in the middle");
    check(&with(&[0x0b]), "kind is unknown");
    check(&with(&[0x02, 0x80]), "ends in the middle");
    check(&with(&[0x02, 0x80, 0x00]), "shortest form");
    check(&with(&[0x82, 0x00]), "flag");
    check(&with(&[0x22, 0x00, 0x07, 0x00]), "process has not started");
    check(&with(&[0x02, 0x00, 0x01]), "outside the address space");
    check(&with(&[0x20, 0x00, 0x05, 0x01, 0x00]), "next free index");
    check(&with(&[0x20, 0x00, 0x01, 0x01, 0x09]), "parent");
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    let ended = Record { at_us: 5, process: 0, event: Event::ProcessEnded };
    assert!(matches!(writer.write(&ended), Err(TraceError::Refused(_))));
    writer.write(&started(0, None)).unwrap();
    writer.write(&ended).unwrap();
    assert!(matches!(writer.write(&Record { at_us: 4, ..ended }), Err(TraceError::Refused(_))));
    let run = Run { first: PAGE_MAX, pages: 2 };
    let outside = Record { at_us: 5, process: 0, event: Event::Discarded { run } };
    assert!(matches!(writer.write(&outside), Err(TraceError::Refused(_))));
    assert_eq!(read(&writer.finish().unwrap()).unwrap().len(), 2);
}

#[test]
fn a_long_command_is_cut_between_characters() {
    let long = Header { command: "é".repeat(4000), ..header() };
    let bytes = Writer::new(Vec::new(), &long).unwrap().finish().unwrap();
    assert_eq!(Reader::new(&bytes[..]).unwrap().header().command, "é".repeat(2048));
}
