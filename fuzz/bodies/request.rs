//! The parser on the server's side: never panics, never takes more than there is, and what it understands survives being
//! encoded again.

use rackmem_wire::{FRAME_BYTES_MAX, Request, frame_len, reseal};

pub(crate) fn run(bytes: &[u8]) {
    let _ = Request::parse(bytes);
    let mut bytes = bytes.to_vec();
    reseal(&mut bytes);
    assert!(!matches!(frame_len(&bytes), Ok(Some(len)) if len > FRAME_BYTES_MAX));
    if let Ok(Some((id, request, len))) = Request::parse(&bytes) {
        assert!(len <= bytes.len());
        let mut again = Vec::new();
        request.encode(id, &mut again);
        assert_eq!(Request::parse(&again).unwrap(), Some((id, request, again.len())));
    }
}
