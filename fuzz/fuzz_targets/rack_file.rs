//! The text of a rack file.
#![no_main]

#[path = "../bodies/rack_file.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
