//! Rack files worth keeping for the fuzzer, replayed, and each of them with something cut out and something put in.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../../fuzz/bodies/rack_file.rs"]
mod rack_file;

use proptest::prelude::*;

fn corpus() -> Vec<Vec<u8>> {
    let directory = format!("{}/../../fuzz/corpus/rack_file", env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort_unstable();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn rack_files() {
    let files = corpus();
    assert!(files.len() > 5, "the corpus is gone");
    files.iter().for_each(|file| rack_file::run(file));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn changed_rack_files(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        cut in 0usize..12,
        put in prop_oneof!["[a-z0-9:\"= \\[\\]\n\r\u{e9}\u{1f4be}]{0,4}", Just("\r\n".to_owned()), Just("65536".to_owned())],
    ) {
        let files = corpus();
        let mut file: Vec<char> = String::from_utf8(which.get(&files).clone()).unwrap().chars().collect();
        let at = at.index(file.len() + 1);
        file.splice(at..(at + cut).min(file.len()), put.chars());
        rack_file::run(file.into_iter().collect::<String>().as_bytes());
    }
}
