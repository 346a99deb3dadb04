//! Bytes that a client receives.
#![no_main]

#[path = "../bodies/answer.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
