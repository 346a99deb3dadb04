//! The parser on the client's side: never panics, never takes more than there is, and what it understands survives being
//! encoded again.

use rackmem_wire::{Answer, FRAME_BYTES_MAX, frame_len, reseal};

pub(crate) fn run(bytes: &[u8]) {
    let _ = Answer::parse(bytes);
    let mut bytes = bytes.to_vec();
    reseal(&mut bytes);
    assert!(!matches!(frame_len(&bytes), Ok(Some(len)) if len > FRAME_BYTES_MAX));
    if let Ok(Some((id, answer, len))) = Answer::parse(&bytes) {
        assert!(len <= bytes.len());
        if let Answer::Segments(segments) = answer {
            assert_eq!(segments.iter().count(), segments.len());
        }
        let mut again = Vec::new();
        answer.encode(id, &mut again);
        assert_eq!(Answer::parse(&again).unwrap(), Some((id, answer, again.len())));
    }
}
