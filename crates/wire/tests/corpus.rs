//! What the fuzzer found worth keeping, replayed.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../../fuzz/bodies/answer.rs"]
mod answer;
#[path = "../../../fuzz/bodies/request.rs"]
mod request;

fn replay(corpus: &str, run: fn(&[u8])) {
    let directory = format!("{}/../../fuzz/corpus/{corpus}", env!("CARGO_MANIFEST_DIR"));
    let mut files = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        run(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 5, "the corpus {corpus} is gone");
}

#[test]
fn requests() {
    replay("request", request::run);
}

#[test]
fn answers() {
    replay("answer", answer::run);
}
