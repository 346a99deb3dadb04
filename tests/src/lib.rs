//! End-to-end tests: real programs under the built `rackmem` binary, and the harness that runs them.
//!
//! Every program checks its own memory and also has to pass without rackmem, so a failure is rackmem's. The harness
//! needs root (or what `rackmem doctor` asks for), a C compiler, Go, Java, Python, Redis and stress-ng, and fails loudly
//! where one is missing. It ends only processes that it started, and all of them.

mod case;
mod client;
mod machine;
mod process;
mod programs;
mod rack;
mod redis;
mod standing;

pub use case::Case;
pub use client::Client;
pub use machine::{anonymous_kib as target_anonymous_kib, has_ended};
pub use process::{Ended, Process};
pub use programs::{c_program, go_program, java_program, python_program, required};
pub use rack::{Rack, SMALL_RACK, free_address, rackmem};
pub use redis::Redis;
pub use standing::StandingRack;

/// Makes one test for each local limit: 50 %, 25 % and 10 % of a program's memory.
#[macro_export]
macro_rules! at_every_limit {
    ($($(#[$attribute:meta])* $name:ident => $case:expr;)*) => {$(
        $(#[$attribute])*
        mod $name {
            use super::*;

            #[test]
            fn with_half_of_its_memory_local() {
                $case.check(50);
            }

            #[test]
            fn with_a_quarter_of_its_memory_local() {
                $case.check(25);
            }

            #[test]
            fn with_a_tenth_of_its_memory_local() {
                $case.check(10);
            }
        }
    )*};
}
