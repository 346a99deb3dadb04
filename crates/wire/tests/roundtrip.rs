//! Whatever is encoded parses to itself, and whatever arrives is parsed without a panic.

use proptest::prelude::*;
use rackmem_types::PAGE_SIZE;
use rackmem_wire::{
    Answer, ErrorCode, FRAME_BYTES_MAX, Header, Mapped, NAME_BYTES_MAX, OwnerToken, PageRange, PageRecord,
    PageStatus, Proof, Request, SegmentInfo, Segments, Status, U64, Welcome, WireError, WriteRecord,
    frame_len, write_head,
};

/// Parses `bytes` as one request, whole, in every prefix (which is never an error), and with more behind it.
fn check_request(id: u64, request: &Request<'_>) {
    let mut bytes = Vec::new();
    request.encode(id, &mut bytes);
    assert_eq!(frame_len(&bytes), Ok(Some(bytes.len())));
    let len = bytes.len();
    for cut in [0, 3, 4, 31, 32, len / 2, len - 1] {
        assert_eq!(Request::parse(&bytes[..cut.min(len - 1)]), Ok(None));
    }
    bytes.extend_from_slice(b"more");
    assert_eq!(Request::parse(&bytes), Ok(Some((id, *request, len))));
    assert!(Answer::parse(&bytes).is_err(), "a request is no answer");
}

fn check_answer(id: u64, answer: &Answer<'_>) {
    let mut bytes = Vec::new();
    answer.encode(id, &mut bytes);
    assert_eq!(Answer::parse(&bytes), Ok(Some((id, *answer, bytes.len()))));
    assert_eq!(Answer::parse(&bytes[..bytes.len() - 1]), Ok(None));
    assert!(Request::parse(&bytes).is_err(), "an answer is no request");
}

fn name() -> impl Strategy<Value = String> {
    ".{0,32}".prop_filter("fits", |name| name.len() <= NAME_BYTES_MAX)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn small_requests(id: u64, segment: u64, nonce: [u8; 16], proof: [u8; 32], a: u16, b: u16, n: u64, m: u64, name in name()) {
        let owner = OwnerToken(nonce);
        for request in [
            Request::Hello { version_min: a, version_max: b, nonce },
            Request::Auth(Proof(proof)),
            Request::SegmentCreate { name: &name, pages: n, owner, lease_ms: m },
            Request::SegmentOpen { segment, owner, epoch: n },
            Request::SegmentDestroy { segment },
            Request::SegmentList,
            Request::SegmentMap { segment },
            Request::Ping,
            Request::Stat,
        ] {
            check_request(id, &request);
        }
    }

    #[test]
    fn page_requests(id: u64, segment: u64, pages in prop::collection::vec(any::<[u64; 3]>(), 1..=256)) {
        let indexes: Vec<U64> = pages.iter().map(|page| page[0].into()).collect();
        check_request(id, &Request::Read { segment, pages: &indexes });
        let ranges: Vec<PageRange> = pages.iter().map(|page| PageRange::new(page[0], page[1])).collect();
        check_request(id, &Request::Discard { segment, up_to: pages[0][2], ranges: &ranges });
        let records: Vec<WriteRecord> = pages.iter().map(|page| WriteRecord::new(page[0], page[1], page[2])).collect();
        let data: Vec<_> = pages.iter().map(|page| [page[0] as u8; PAGE_SIZE]).collect();
        let request = Request::Write { segment, records: &records, data: &data };
        check_request(id, &request);
        let (mut whole, mut head) = (Vec::new(), Vec::new());
        request.encode(id, &mut whole);
        write_head(id, segment, &records, &mut head);
        prop_assert_eq!(&whole[..head.len()], &head[..]);
    }

    #[test]
    fn small_answers(id: u64, segment: u64, words: [u64; 11], nonce: [u8; 16], auth_required: bool, text in "[a-zé]{0,200}", code in 0..12usize) {
        let [a, b, c, d, ..] = words;
        for answer in [
            Answer::Welcome(Welcome {
                version: a as u16, auth_required, in_flight_max: b as u32, frame_bytes_max: c as u32,
                pages_max: d as u32, epoch: a, pages_total: b, pages_free: c, nonce,
            }),
            Answer::Ok,
            Answer::Segment { segment, pages: a, epoch: b },
            Answer::Mapped(Mapped { pages: a, data_offset: b, meta_offset: c, len: d }),
            Answer::Pong,
            Answer::Status(Status { epoch: a, errors: b, segments: c, pages_filled: d, ..Status::default() }),
            Answer::Error { code: ErrorCode::ALL[code], detail: a, text: &text },
        ] {
            check_answer(id, &answer);
        }
    }

    #[test]
    fn page_answers(id: u64, pages in prop::collection::vec((any::<[u64; 3]>(), 0u8..3), 1..=256)) {
        let records: Vec<PageRecord> = pages.iter().map(|([page, version, checksum], kind)| match kind {
            0 => PageRecord::ok(*page, *version, *checksum),
            1 => PageRecord::absent(*page, PageStatus::Missing),
            _ => PageRecord::absent(*page, PageStatus::OutOfRange),
        }).collect();
        let data: Vec<_> = records.iter().filter(|record| record.is_ok())
            .map(|record| [record.page.get() as u8; PAGE_SIZE]).collect();
        check_answer(id, &Answer::Pages { records: &records, data: &data });
        let statuses: Vec<u8> = pages.iter().map(|(_, kind)| *kind).collect();
        check_answer(id, &Answer::Stored(&statuses));
    }

    #[test]
    fn segment_lists(id: u64, segments in prop::collection::vec((any::<[u64; 3]>(), any::<u32>(), prop::option::of(0..u64::MAX), name()), 0..20)) {
        let infos: Vec<_> = segments.iter().map(|([id, pages, filled], attached, lease_left_ms, name)| SegmentInfo {
            id: *id, pages: *pages, filled: *filled, attached: *attached, lease_left_ms: *lease_left_ms, name,
        }).collect();
        let mut bytes = Vec::new();
        Segments::encode(id, infos.iter().copied(), &mut bytes);
        match Answer::parse(&bytes) {
            Ok(Some((_, Answer::Segments(parsed), _))) => prop_assert_eq!(parsed.iter().collect::<Vec<_>>(), infos),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = (Request::parse(&bytes), Answer::parse(&bytes), frame_len(&bytes));
    }

    #[test]
    fn a_plausible_header_never_panics(op: u8, count in 0u16..300, len in 0u32..5000, rest in prop::collection::vec(any::<u8>(), 0..5000)) {
        let header = Header {
            magic: rackmem_wire::MAGIC.into(), op, flags: 0, count: count.into(), len: len.into(),
            check: 0.into(), request: 1.into(), segment: 1.into(),
        };
        let bytes = [zerocopy::IntoBytes::as_bytes(&header), &rest].concat();
        let _ = (Request::parse(&bytes), Answer::parse(&bytes));
        if let Ok(Some(frame)) = frame_len(&bytes) {
            prop_assert!(frame <= FRAME_BYTES_MAX);
        }
    }

    #[test]
    fn a_flipped_bit_outside_the_pages_is_noticed(bit in 0..(32 + 24) * 8usize) {
        let mut bytes = Vec::new();
        let request = Request::Write { segment: 3, records: &[WriteRecord::new(7, 8, 9)], data: &[[5; PAGE_SIZE]] };
        request.encode(11, &mut bytes);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!matches!(Request::parse(&bytes), Ok(Some(_))));
    }
}

#[test]
fn a_frame_that_lies_about_its_length_is_an_error_at_once() {
    let mut bytes = Vec::new();
    Request::Ping.encode(1, &mut bytes);
    bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(Request::parse(&bytes), Err(WireError::TooLong { len: u32::MAX, .. })));
    bytes[8..12].copy_from_slice(&100u32.to_le_bytes());
    assert!(matches!(Request::parse(&bytes), Err(WireError::Length { len: 100, .. })));
}

#[test]
fn another_protocol_is_recognised_by_its_first_bytes() {
    assert!(matches!(Request::parse(b"GET / HTTP/1.1"), Err(WireError::Magic(_))));
    assert!(matches!(Request::parse(b"GET "), Err(WireError::Magic(_))));
    assert_eq!(Request::parse(b"RKM"), Ok(None));
}

#[test]
fn long_error_text_is_cut_between_characters() {
    let mut bytes = Vec::new();
    Answer::Error { code: ErrorCode::Full, detail: 5, text: &"é".repeat(1000) }.encode(9, &mut bytes);
    match Answer::parse(&bytes) {
        Ok(Some((9, Answer::Error { code: ErrorCode::Full, detail: 5, text }, _))) => {
            assert_eq!(text.len(), 512)
        }
        other => panic!("{other:?}"),
    }
}
