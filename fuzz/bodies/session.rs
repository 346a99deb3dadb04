//! A whole session on the server's side: whatever comes, the server answers with frames that its client understands.

use std::sync::Arc;

use rackmem_memory_server::{Batch, Flow, Limits, Piece, Session, Store};
use rackmem_wire::{Answer, Request, frame_len, reseal};

pub(crate) fn run(bytes: &[u8]) {
    // Small, so that it is soon full.
    let store = Arc::new(Store::new(64, 1, None, Limits::default()));
    let mut session = Session::new(Arc::clone(&store), true, [0; 16]);
    let mut batch = Batch::default();
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    loop {
        reseal(&mut bytes[at..]);
        let (id, request, len) = match Request::parse(&bytes[at..]) {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error) => {
                session.malformed(&error, &mut batch);
                break;
            }
        };
        assert_eq!(frame_len(&bytes[at..]), Ok(Some(len)));
        match session.handle(id, &request, &mut batch) {
            Flow::Next => {}
            Flow::SendFirst => {
                assert!(!batch.is_empty(), "nothing to send, and it would be asked for for ever");
                send(&mut batch);
                continue;
            }
            Flow::Pass(_, segment) => assert_eq!(segment.map().0, segment.layout()),
            Flow::Close => break,
        }
        if batch.is_full() {
            send(&mut batch);
        }
        at += len;
    }
    send(&mut batch);
}

/// Takes a batch as the socket would, and reads it as the client would.
fn send(batch: &mut Batch) {
    let mut sent = Vec::new();
    for piece in batch.pieces(0) {
        match piece {
            Piece::Bytes(bytes) => sent.extend_from_slice(bytes),
            Piece::Shared(memory, offset, len) => {
                let start = sent.len();
                sent.resize(start + len, 0);
                memory.read(offset, &mut sent[start..]);
            }
        }
    }
    assert_eq!(sent.len(), batch.len());
    let mut rest = &sent[..];
    while !rest.is_empty() {
        let (_, _, len) = Answer::parse(rest).unwrap().unwrap();
        rest = &rest[len..];
    }
    batch.clear();
}
