//! The program inside a test guest.

fn main() {}
