//! What the fuzzer found worth keeping, replayed against a session.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../../fuzz/bodies/session.rs"]
mod session;

#[test]
fn sessions() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/session");
    let mut files = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        session::run(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 2, "the corpus is gone");
}
