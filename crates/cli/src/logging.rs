//! Where the long-running commands write what happens: standard error, one line each, colours on a terminal only.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::style;

/// Call it once, before the first thread starts. `RUST_LOG` chooses what is shown; without it, rare events are.
pub(crate) fn begin() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // Who reads it may have gone. To say so on the same standard error would end the task that logs in a panic.
        .log_internal_errors(false)
        .with_ansi(style::wants_colour(io::stderr().is_terminal()))
        .init();
}
